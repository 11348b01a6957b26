"""Batch: lets a handler of batches settle single messages otherwise than the rest."""

from __future__ import annotations


class Batch:
    """The batch that a handler has in hand, for one that asks for it by annotation.

    Messages are settled together: all are done when the handler returns, but for those that `fail` was called with.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._failures: dict[int, Exception] = {}

    def __len__(self) -> int:
        """Return how many messages the handler got."""
        return self._size

    def fail(self, index: int, error: Exception) -> None:
        """Settle one message as if it had been handled alone and had raised `error`; the others are not touched.

        Args:
            index: Of the message in the list that the handler got.
            error: Reject makes it a dead letter, Retry lets it come again, anything else follows the stage's policy.

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
