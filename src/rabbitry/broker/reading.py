"""Pausing the reading of a client: a gate with the set of reasons to pause."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Protocol


class Reason(StrEnum):
    """A reason to stop reading a client's socket."""

    COMMIT = "commit"
    """A change by the client is not durable yet, and must be answered before later methods."""
    LOADING = "loading"
    """The store is reading the messages that a method of the client needs."""
    TURN = "turn"
    """It is other clients' turn, or a long operation of the client continues in steps."""
    UNREAD = "unread"
    """The client has not read its answers."""
    ALARM = "alarm"
    """A publish that came during an alarm, and the frames after it, are held until the alarm ends."""
    FLOW = "flow"
    """The client adds to a store with many pending writes."""
    MEMORY = "memory"
    """The memory alarm is on, and the client publishes."""
    DISK = "disk"
    """The disk alarm is on, and the client publishes."""
    REFUSED = "refused"
    """Its login was refused; it is disconnected after a while."""


_HOLDS_FRAMES: Final = (Reason.COMMIT, Reason.LOADING, Reason.TURN, Reason.UNREAD, Reason.ALARM)
_ALARMS: Final = frozenset((Reason.MEMORY, Reason.DISK))


class Readable(Protocol):
    """A socket whose reading can be paused; both methods may be called again without harm."""

    def pause_reading(self) -> None:
        """Stop reading the socket."""

    def resume_reading(self) -> None:
        """Read the socket again."""


class ReadingGate:
    """The gate of one connection, which is read while the set of reasons is empty.

    Each reason is added once and removed by the event that ends it. The closing handshake is read regardless
    (`Driver.expect_end`).
    """

    def __init__(self, driver: Readable) -> None:
        self.reasons: set[Reason] = set()
        self._driver = driver

    def pause(self, *reasons: Reason) -> None:
        """Stop reading for these reasons, in addition to the present ones."""
        self.reasons.update(reasons)
        if self.reasons:
            self._driver.pause_reading()

    def resume(self, *reasons: Reason) -> None:
        """Remove reasons; resume reading unless another reason remains."""
        self.reasons.difference_update(reasons)
        if not self.reasons:
            self._driver.resume_reading()

    def resume_frames(self) -> None:
        """Remove the reasons for which the connection holds frames that were already read."""
        self.resume(*_HOLDS_FRAMES)

    @property
    def is_blocked(self) -> bool:
        """Whether an alarm is among the reasons, so that the client is notified (connection.blocked)."""
        return not _ALARMS.isdisjoint(self.reasons)

    @property
    def state(self) -> str:
        """The connection's state in RabbitMQ's words: blocked, flow or running."""
        return "blocked" if self.is_blocked else "flow" if Reason.FLOW in self.reasons else "running"
