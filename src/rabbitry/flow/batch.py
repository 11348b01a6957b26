"""Batch: lets a handler of batches settle single messages differently from the rest."""

from __future__ import annotations

from collections.abc import Callable


class Batch:
    """The batch that a handler is working on, passed to a handler that has a parameter of this type.

    The messages are settled together: when the handler returns, all are done except those that `fail` was called for.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._failures: dict[int, Exception] = {}
        self._skipped: set[int] = set()
        self._on_failure: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Return how many messages the handler got."""
        return self._size

    def fail(self, index: int, error: Exception) -> None:
        """Settle one message as if it had been handled alone and had raised `error`; the others are not touched.

        Args:
            index: The message's index in the list that the handler got.
            error: Reject makes the message a dead letter, Retry delivers it again, any other error follows the stage's
                policy.

        Raises:
            IndexError: No message has this index.
            TypeError: `error` is no exception.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"no message of the batch has the index {index}: there are {self._size}")
        if not isinstance(error, Exception):
            raise TypeError(f"{error!r} is no exception")
        self._failures[index] = error


def failures_of(batch: Batch) -> dict[int, Exception]:
    """Return the errors of single messages, by index."""
    return batch._failures


def skip(batch: Batch, index: int) -> None:
    """Note that one message was handled before, by a copy of it."""
    batch._skipped.add(index)


def skipped_of(batch: Batch) -> set[int]:
    """Return the messages that were handled before, by index."""
    return batch._skipped


def on_failure(batch: Batch, undo: Callable[[], None]) -> None:
    """Register a function that is called, in a thread, if the batch fails after its handler has returned.

    That is in what is around the handler: a middleware, or the clean-up of a dependency.
    """
    batch._on_failure = undo


def undo_of(batch: Batch) -> Callable[[], None] | None:
    """Return the function that is called if the batch fails; None if there is none."""
    return batch._on_failure
