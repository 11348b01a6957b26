"""Receipts of published messages, and the failures among them that nobody has retrieved yet."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from rabbitry.amqp.protocol.tables import decode_text, encode_text
from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)
_KEPT: Final = 1024
"""Most failures of a connection that are kept to be raised or logged; older ones are only counted."""
_PATIENCE: Final = 5.0
"""Seconds between two log lines; the program has at least half of that to retrieve a failure."""


class Receipt(asyncio.Future[None]):
    """The receipt of a sent message: a future that is done once the broker has confirmed the message.

    Awaiting it raises the errors of `Channel.publish`. It need not be awaited: the failures that a program has not seen
    are raised by `wait_for_confirms` or at the end of the channel's or the connection's block, otherwise logged.

    Attributes:
        failure: Why the message was not confirmed; None if it was, or if that is not known yet. Reading it does not
            count as having seen the failure.
    """

    # asyncio prints "Future exception was never retrieved" once for each future with an unseen exception; `Failures`
    # raises or logs all of them together. The slot saves each message a dict of its own.
    __slots__ = ("_encoded_id",)
    _encoded_id: bytes
    failure: Exception | None = None

    @classmethod
    def _confirmed(cls, message_id: str) -> Self:
        """Return a receipt that is done, of a message confirmed before, for `Publisher.send`."""
        receipt = cls(loop=asyncio.get_running_loop())
        receipt._encoded_id = encode_text(message_id)
        receipt.set_result(None)
        return receipt

    @property
    def message_id(self) -> str:
        """The message's id: the one in its properties, or the one that the client made."""
        return decode_text(self._encoded_id)

    def _fail(self, error: Exception) -> None:
        """Fail the receipt with `error`. Does nothing if it is done."""
        if not self.done():
            self.failure = error
            self.set_exception(error)

    @property
    def _is_unseen(self) -> bool:
        """Whether it has failed and nobody has awaited it, or called `result` or `exception`."""
        return self.failure is not None and self._log_traceback

    def __del__(self) -> None:
        """Do nothing: asyncio's own method prints each failure that nobody has retrieved."""


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a future whose waiter may be gone, without asyncio printing it. Does nothing if it is done."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as retrieved; a waiter still gets it


if TYPE_CHECKING:

    class Failure(Protocol):
        """A receipt of either client that has failed."""

        failure: Exception | None

        @property
        def _is_unseen(self) -> bool:
            """Whether nobody has retrieved it."""


class Failures:
    """The failures of one connection's messages that were published with `send`, to be raised or logged.

    Used only in the thread of its event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: str) -> None:
        """connection: the connection's name in the log."""
        self._loop = loop
        self._connection = connection
        self._kept: deque[tuple[object, Failure]] = deque()
        self._dropped: weakref.WeakKeyDictionary[object, tuple[int, Exception]] = weakref.WeakKeyDictionary()
        """Number of a channel's unseen failures that were dropped from `_kept`, and the last of them."""
        self._untold: deque[tuple[float, Failure]] = deque()
        """Failures that may have to be logged, with the time of each."""
        self._forgotten = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, channel: object, failure: Failure) -> None:
        """Record a failure of a channel; it is logged unless the program retrieves it soon."""
        if len(self._kept) >= _KEPT:
            owner, oldest = self._kept.popleft()
            if oldest._is_unseen and oldest.failure is not None:
                count, _ = self._dropped.get(owner, (0, None))
                self._dropped[owner] = count + 1, oldest.failure
        if len(self._untold) >= _KEPT:
            _, oldest = self._untold.popleft()
            self._forgotten += oldest._is_unseen
        self._kept.append((channel, failure))
        self._untold.append((self._loop.time(), failure))
        if self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._look)

    def take(self, channel: object | None = None) -> ExceptionGroup[Exception] | None:
        """Return the failures since the last call, retrieved or not, of one channel or of all; None if there are none.

        A UsageError that was retrieved is left out: nothing was sent, and its caller knows.
        """
        return self._take(channel, lambda failure: failure._is_unseen or not isinstance(failure.failure, UsageError))

    def take_unseen(self, channel: object | None = None) -> ExceptionGroup[Exception] | None:
        """Return the failures that nobody has retrieved, of one channel or of all; None if there are none."""
        return self._take(channel, lambda failure: failure._is_unseen)

    def _take(self, channel: object | None, wanted: Callable[[Failure], bool]) -> ExceptionGroup[Exception] | None:
        mine = [failure for owner, failure in self._kept if channel is None or owner is channel]
        taken = set(map(id, mine))
        self._kept = deque((owner, failure) for owner, failure in self._kept if id(failure) not in taken)
        self._untold = deque((at, failure) for at, failure in self._untold if id(failure) not in taken)
        owners = list(self._dropped) if channel is None else [channel]
        dropped = [self._dropped.pop(owner) for owner in owners if owner in self._dropped]
        errors = [failure.failure for failure in mine if failure.failure is not None and wanted(failure)]
        count = len(errors) + sum(number for number, _ in dropped)
        if not count:
            return None
        shown = errors or [last for _, last in dropped]
        kept = f"{len(shown)} of their errors {'was' if len(shown) == 1 else 'were'} kept"
        more = "" if len(shown) == count else f"; {kept}"
        return ExceptionGroup(f"{_not_confirmed(count)}{more}", shown)

    def tell(self) -> None:
        """Log how many messages failed unnoticed, and the cause of the first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell(len(self._untold))

    def _look(self) -> None:
        """Log failures that are old enough: a task or thread may be about to retrieve a recent one."""
        self._timer = None
        until = self._loop.time() - _PATIENCE / 2
        self._tell(sum(at <= until for at, _ in self._untold))
        if self._untold:
            self._timer = self._loop.call_later(_PATIENCE, self._look)

    def _tell(self, number: int) -> None:
        """Log the `number` oldest failures."""
        oldest = [self._untold.popleft()[1] for _ in range(number)]
        unseen = [failure for failure in oldest if failure._is_unseen]
        count = len(unseen) + self._forgotten
        self._forgotten = 0
        if unseen:
            _logger.warning(
                "%s: %s; the first: %s",
                self._connection,
                _not_confirmed(count),
                unseen[0].failure,
            )


def _not_confirmed(count: int) -> str:
    return "a message was not confirmed" if count == 1 else f"{count} messages were not confirmed"


def raise_all(group: ExceptionGroup[Exception] | None) -> None:
    """Raise the errors of publishes, if there are any."""
    if group is not None:
        raise group
