"""A queue: messages in order, consumers in turn."""

import heapq
from collections import deque
from typing import TYPE_CHECKING

from warren.amqp.protocol.tables import Table
from warren.broker.queues.consumer import Consumer
from warren.broker.queues.message import Entry, Message

if TYPE_CHECKING:
    from warren.broker.connection import ClientConnection


class Queue:
    """A queue of one virtual host.

    owner: the connection that an exclusive queue belongs to. Entries that come back are kept in a heap of
    their own: everything in it was taken from the front, so it stands before everything in `_ready`.
    """

    def __init__(
        self,
        name: str,
        *,
        durable: bool,
        auto_delete: bool,
        owner: "ClientConnection | None",
        arguments: Table,
    ) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments
        self.consumers: dict[tuple[int, str], Consumer] = {}
        self.unsettled = 0
        self._ready: deque[Entry] = deque()
        self._returned: list[Entry] = []
        self._turns: deque[Consumer] = deque()
        self._next_position = 0

    def __len__(self) -> int:
        """How many messages are ready."""
        return len(self._ready) + len(self._returned)

    # -- messages --------------------------------------------------------------------------------------

    def push(self, message: Message) -> None:
        """Put a message at the end."""
        self._ready.append(Entry(self._next_position, message))
        self._next_position += 1

    def pop(self) -> Entry | None:
        """Take the first message, for delivery."""
        if self._returned:
            return heapq.heappop(self._returned)
        return self._ready.popleft() if self._ready else None

    def requeue(self, entry: Entry) -> None:
        """Put a message back to its place; it will come as redelivered."""
        entry.redelivered = True
        heapq.heappush(self._returned, entry)

    def purge(self) -> int:
        """Drop all messages that are ready, and say how many they were."""
        count = len(self)
        self._ready.clear()
        self._returned.clear()
        return count

    # -- consumers -------------------------------------------------------------------------------------

    @property
    def has_exclusive_consumer(self) -> bool:
        """Whether its one consumer wants to be alone."""
        return any(consumer.exclusive for consumer in self.consumers.values())

    def add_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take its turns."""
        self.consumers[id(consumer.channel), consumer.tag] = consumer
        self._turns.append(consumer)

    def remove_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take no more turns."""
        self.consumers.pop((id(consumer.channel), consumer.tag), None)
        if not consumer.parked:
            self._turns.remove(consumer)

    def unpark(self, consumer: Consumer) -> None:
        """Let a consumer that had no room take turns again."""
        if consumer.parked and (id(consumer.channel), consumer.tag) in self.consumers:
            consumer.parked = False
            self._turns.append(consumer)

    def dispatch(self) -> None:
        """Deliver what is ready, in turns, as far as consumers have room.

        A consumer without room is taken out of the turns until it has settled something, or its socket
        takes data again, so none is asked in vain.
        """
        turns = self._turns
        while turns and (self._ready or self._returned):
            consumer = turns.popleft()
            if not consumer.has_room():
                consumer.parked = True
                consumer.channel.parked.add(consumer)
                continue
            turns.append(consumer)
            entry = self.pop()
            if entry is not None:
                consumer.channel.deliver(consumer, entry)
