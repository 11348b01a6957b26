"""The client that a handler works for, as far as handlers need it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from rabbitry.amqp.protocol.methods import Method
from rabbitry.broker._permissions import Permissions
from rabbitry.broker._queues import Owner, Queue


class Client(Owner, Protocol):
    """The connection on which a method came. It owns the exclusive queues that the client declares."""

    permissions: Permissions
    """What the client's user may do in its virtual host."""

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel has been closed meanwhile."""

    def work(self, steps: Iterator[None], then: Callable[[], None] = ...) -> None:
        """Take the steps of a long operation in turns with other clients, then call back. Later frames are held."""

    def change(self, number: int, steps: Iterator[None], answer: Callable[[], Method | None]) -> None:
        """Take the steps of a change as `work` does, and answer on channel `number` when all of it is durable."""

    def wait_for_commit(self, number: int, answer: Method | None) -> None:
        """Hold a client's further frames until what it just changed is durable, then answer."""

    def carry_out_when_loaded(self, number: int, method: Method, queue: Queue) -> None:
        """Hold a method and the client's later frames until the store has answered the reading of a queue."""

    def carry_out_again(self, number: int, method: Method) -> None:
        """Hold a method and the client's later frames until other clients have had their turn."""
