"""The errors of apps, handlers and workers; see also `rabbitry.exceptions`."""

from __future__ import annotations

import math

from rabbitry.exceptions import RabbitryError, UsageError


class AppError(UsageError):
    """An app is invalid. The text names file and function; nothing was declared."""


class TopologyMismatch(RabbitryError):
    """An exchange or queue exists with other flags than the app declares. Nothing was changed."""


def _text_of(name: str, text: object) -> str:
    """Return `text`; raise TypeError for what other libraries take there, a delay or a flag."""
    if not isinstance(text, str):
        raise TypeError(f"{name}({text!r}): the positional argument is a text; everything else is a keyword")
    return text


class Reject(RabbitryError):
    """Raised by a handler to make its message a dead letter at once.

    Args:
        text: Why, for those who read the dead letter.
        reason: The dead letter's `x-rabbitry-reason`: `rejected` or `wrong-status`.

    Raises:
        TypeError: `text` is not a string.
    """

    def __init__(self, text: str = "rejected by the handler", *, reason: str = "rejected") -> None:
        super().__init__(_text_of("Reject", text))
        self.reason = reason


class Retry(RabbitryError):
    """Raised by a handler to get its message again later, as another attempt.

    Args:
        text: Why, for the log and the dead letter.
        after: Seconds, rounded up to the delay of a retry queue; None means the delay of the stage's policy.
        count: False does not count this attempt, for a message that was not at fault, such as a throttled one. That
            holds for as many retries of a message as the stage's option `uncounted` says; further ones are counted.

    Raises:
        UsageError: `after` is not a finite number.
        TypeError: `text` is not a string. `Retry(30)` is an error; the delay is a keyword, as in `Retry(after=30)`.
    """

    def __init__(
        self, text: str = "the handler asked for another attempt", *, after: float | None = None, count: bool = True
    ) -> None:
        super().__init__(_text_of("Retry", text))
        if after is not None and not (isinstance(after, int | float) and math.isfinite(after)):
            raise UsageError(f"Retry(after={after!r}): give a finite number of seconds")
        self.after = after
        self.count = count


class CallFailed(RabbitryError):
    """A call's message failed for good; the text is the handler's error.

    Attributes:
        reason: The reason of its dead letter: `rejected`, `failed`, `undecodable`, …; or `handled`, if the stage is
            idempotent and had handled a message with its key before.
    """

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class CallCancelled(CallFailed):
    """A call's message was cancelled by its id, before or while it was handled."""


class CallTimeout(RabbitryError, TimeoutError):
    """No reply to a call came in time. Its message may still be handled."""


class DependencyFailed(RabbitryError):
    """A dependency, or a lifespan, failed in its set-up or clean-up. The text names it; the cause is its own error."""


class StoreError(RabbitryError):
    """The store of a unique message, of an idempotent stage or of a join can't be opened, or does not answer."""


class TimeLimitExceeded(RabbitryError, TimeoutError):
    """A handler took longer than its stage's time limit."""


class WorkerProcessDied(RabbitryError):
    """The process that ran a handler ended without an answer."""


class WorkerStuck(RabbitryError):
    """All calls that a stage may run at once hang, so the worker ends and has to be started again."""
