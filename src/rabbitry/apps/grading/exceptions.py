"""The errors of the assignment correction: of marking schemes, submissions, their files and the sandbox."""

from __future__ import annotations

from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import RabbitryError, UsageError


class SchemeInvalid(UsageError):
    """A marking scheme is invalid. The text names the file, the line and the reason."""


class SandboxUnavailable(UsageError):
    """This machine can't confine a submission, so none was run. The text names what to install."""


class SubmissionRefused(RabbitryError):
    """A submission can't be marked: it is unreadable, too large or an unsafe archive. It was not run."""


class SandboxFailed(RabbitryError):
    """The sandbox itself failed, not the submission, which has no mark. Marking it again may succeed."""


class LexingFailed(RabbitryError):
    """A submission's text can't be read within limits, to be coloured or compared. The text names the reason."""


class FilesError(RecordsError):
    """A submitted file can't be stored or read. The text names the file or its place, and the reason."""


class ReadingBusy(FilesError):
    """A submitted file can't be shown now, because too many others are being read. Trying again will help."""


class FileLost(FilesError):
    """A submitted file is missing or damaged where it is kept. Reading it again will not help."""
