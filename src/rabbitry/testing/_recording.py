"""What clients published to a broker of a test's own, and what waits in its queues."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from rabbitry._decode import decode_json
from rabbitry._words import counted
from rabbitry.amqp.protocol.properties import Properties, decode_header
from rabbitry.broker.message import origin_of

if TYPE_CHECKING:
    from rabbitry.broker.message import Message

MOST_MESSAGES: Final = 100_000
MOST_BYTES: Final = 64 << 20
_MOST_SHOWN: Final = 10
"""Messages that an error shows."""
_LONGEST_SHOWN: Final = 100
"""Bytes of a body that an error shows."""


class _Named(Protocol):
    """A queue that takes a message."""

    @property
    def name(self) -> str:
        """Its name."""


@dataclass(frozen=True, slots=True)
class Published:
    """A message that a client published, or that waits in a queue.

    Attributes:
        vhost: The virtual host's name.
        exchange: The name of the exchange; `""` is the default one.
        routing_key: The routing key.
        properties: The message's properties; `properties.headers` has its headers, None if there are none.
        body: The body as it came.
        queues: The names of the queues that took the message; empty if there was none.
    """

    vhost: str
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    queues: tuple[str, ...]

    @property
    def json(self) -> Any:
        """The body decoded from JSON. Raises `rabbitry.exceptions.Undecodable` for one that is no JSON."""
        return decode_json(self.body, object)

    def __str__(self) -> str:
        body = self.body if len(self.body) <= _LONGEST_SHOWN else self.body[:_LONGEST_SHOWN] + b"..."
        taken = f"to {', '.join(self.queues)}" if self.queues else "to no queue"
        where = "" if self.vhost == "/" else f"virtual host {self.vhost!r}, "
        return f"{where}exchange {self.exchange!r}, key {self.routing_key!r}, {taken}: {body!r}"


def published(vhost: str, message: Message, queues: Iterable[str]) -> Published:
    """Decode a message of the broker."""
    exchange, key = origin_of(message)
    return Published(vhost, exchange, key, decode_header(message.header), message.body, tuple(queues))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a test expects of a message; None, or `...` for JSON, stands for anything."""

    vhost: str
    exchange: str | None = None
    routing_key: str | None = None
    queue: str | None = None
    json: object = ...
    body: bytes | None = None

    def among(self, messages: Iterable[Published]) -> Iterator[Published]:
        """Go over the messages that are as expected."""
        return (message for message in messages if self._is(message))

    def _is(self, message: Published) -> bool:
        return (
            message.vhost == self.vhost
            and self.exchange in (None, message.exchange)
            and (self.routing_key is None or _matches(self.routing_key, message.routing_key))
            and (self.queue is None or self.queue in message.queues)
            and self.body in (None, message.body)
            and (self.json is ... or _is_json(message, self.json))
        )

    def __str__(self) -> str:
        parts = {
            "virtual host": self.vhost if self.vhost != "/" else None,
            "exchange": self.exchange,
            "routing key": self.routing_key,
            "queue": self.queue,
            "body": self.body,
        }
        given = [f"{name} {value!r}" for name, value in parts.items() if value is not None]
        if self.json is not ...:
            given.append(f"JSON {self.json!r}")
        return ", ".join(given) or "any content"


class Recorder:
    """Keeps the last messages that clients published, for all threads.

    At most 100,000 messages and 64 MiB of bodies are kept; older ones are forgotten.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._kept: deque[tuple[str, Message, tuple[str, ...]]] = deque()
        self._size = 0
        self._listeners: list[Callable[[], None]] = []
        self.forgotten: int = 0
        """How many messages there were before the first one that is kept."""

    def note(self, vhost: str, message: Message, queues: Sequence[_Named]) -> None:
        """Keep a message. Called by the broker, on its own thread."""
        with self._news:
            self._kept.append((vhost, message, tuple(queue.name for queue in queues)))
            self._size += len(message.body)
            while len(self._kept) > MOST_MESSAGES or self._size > MOST_BYTES:
                _, oldest, _ = self._kept.popleft()
                self._size -= len(oldest.body)
                self.forgotten += 1
            self._news.notify_all()
            for tell in self._listeners:
                tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call a function on the broker's thread after each message while the block is entered, and not afterwards."""
        with self._news:
            self._listeners.append(tell)
        try:
            yield
        finally:
            with self._news:
                self._listeners.remove(tell)

    def clear(self) -> None:
        """Forget all messages."""
        with self._news:
            self.forgotten += len(self._kept)
            self._kept.clear()
            self._size = 0

    @property
    def count(self) -> int:
        """How many messages were published so far."""
        with self._news:
            return self.forgotten + len(self._kept)

    def messages(self, since: int = 0) -> list[Published]:
        """Return the messages that are kept, without the first `since` of all."""
        return self.news(since)[0]

    def news(self, since: int) -> tuple[list[Published], int]:
        """Return the messages that are kept, without the first `since` of all, and how many there were in all."""
        with self._news:
            count = self.forgotten + len(self._kept)
            fresh = list(islice(reversed(self._kept), max(min(count - since, len(self._kept)), 0)))
        return [published(*item) for item in reversed(fresh)], count

    def wait_for(
        self, wanted: Wanted, count: int, since: int, timeout: float
    ) -> tuple[list[Published], list[Published]]:
        """Wait `timeout` seconds at most for so many messages that are as expected.

        Return those that are, and all that were published, both without the first `since` of all.
        """
        found: list[Published] = []
        seen: list[Published] = []
        looked_at = since

        def look() -> bool:
            nonlocal looked_at
            fresh, looked_at = self.news(looked_at)
            seen.extend(fresh)
            found.extend(wanted.among(fresh))
            return len(found) >= count

        with self._news:
            self._news.wait_for(look, timeout)
        return found, seen


class Recording:
    """What is published to one exchange with one key from `RunningBroker.record` on.

    It may be entered with `with`, and ends with that block then.
    """

    def __init__(self, recorder: Recorder, vhost: str, exchange: str, key: str) -> None:
        self._recorder = recorder
        self._since = recorder.count
        self._wanted = Wanted(vhost=vhost, exchange=exchange, routing_key=key)
        self._ended: list[Published] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the recording. Its messages stay."""
        self._ended = self.messages

    @property
    def messages(self) -> list[Published]:
        """The messages published so far, oldest first."""
        if self._ended is not None:
            return self._ended
        return list(self._wanted.among(self._recorder.messages(self._since)))

    def wait(self, count: int = 1, *, timeout: float = 10.0) -> list[Published]:
        """Wait until so many messages were published, and return all of them, oldest first.

        After the end of its block there will be no more, and it does not wait.

        Raises:
            TimeoutError: There were fewer after `timeout` seconds; the text shows what was published instead.
        """
        if self._ended is None:
            found, seen = self._recorder.wait_for(self._wanted, count, self._since, timeout)
        else:
            found = seen = self._ended
        if len(found) < count:
            raise TimeoutError(
                f"{counted(len(found), 'message')} of {count} came within {timeout:g} s with {self._wanted}; "
                f"{shown(seen)}"
            )
        return found


def shown(messages: Sequence[Published]) -> str:
    """Return a text that shows the last of these messages."""
    if not messages:
        return "nothing was published"
    lines = [f"\n  {message}" for message in messages[-_MOST_SHOWN:]]
    return f"published were {counted(len(messages), 'message')}, the last of them:{''.join(lines)}"


def _matches(pattern: str, key: str) -> bool:
    from rabbitry.flow.spec import topic_matches  # most tests need no pattern, and flow takes a while to import

    return pattern == key or (("*" in pattern or "#" in pattern) and topic_matches(pattern, key))


def _is_json(message: Published, wanted: object) -> bool:
    from rabbitry.exceptions import Undecodable

    try:
        return bool(message.json == wanted)
    except Undecodable:
        return False
