"""The errors of the assignment correction: of marking schemes, submissions, and the sandbox that they run in."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError, UsageError


class SchemeInvalid(UsageError):
    """A marking scheme makes no sense. The text names file, line and why."""


class SandboxUnavailable(UsageError):
    """This machine can't hold a submission in bounds; nothing was run. The text says what to install."""


class SubmissionRefused(RabbitryError):
    """A submission can't be marked: not readable, too large, or an unsafe archive; nothing was run."""


class SandboxFailed(RabbitryError):
    """A sandbox broke, not what ran in it; the submission has no mark. Marking it again may succeed."""
