"""Gates of messages, which decide with a store whether these are handled, and calls of handlers behind them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from rabbitry.flow.outgoing import Outgoing


class Taken(NamedTuple):
    """The value that the handler is called with."""

    value: object


class Gate(Protocol):
    """One message of the stage, and the store that decides about it. is_skipped: whether it was done before."""

    is_skipped: bool

    def take(self) -> Taken | None:
        """Return the value if the handler is to be called. Raises Reject, Retry and Undecodable."""

    def release(self) -> None:
        """Note that the handler failed or was ended."""

    def note(self) -> Outgoing | None:
        """Return the message to the stage itself which notes that the results are confirmed; None if none is needed.

        Called in a thread, when the handler has returned. The worker publishes it once all results are confirmed.
        """


class GatedCall(Protocol):
    """A call of a handler behind gates: with one message, or with those messages of a batch whose gates are open.

    is_skipped: whether the handler is not called since its message was done before.
    """

    @property
    def is_skipped(self) -> bool:
        """See the class."""

    def take(self) -> dict[str, Any] | None:
        """Return the handler's arguments; None if it is not to be called. If it raises, it has released what it took.

        Raises what `Gate.take` raises for a single message.
        """

    def release(self) -> None:
        """Note that the handler failed or was ended."""

    def placed(self, value: object) -> object:
        """Return a result with the place of its message among all of the batch. Raises IndexError."""

    def notes(self) -> list[Outgoing]:
        """Return the notes of the messages that are done. Called in a thread, when the handler has returned."""
