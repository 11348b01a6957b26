"""Marks submissions: a marking scheme's commands and tests, run on a submission in a sandbox."""

from warren.apps.grading.marking.archives import is_archive
from warren.apps.grading.marking.marker import Marking, PartResult, mark
from warren.apps.grading.marking.scheme import Scheme, load_scheme

__all__ = ["Marking", "PartResult", "Scheme", "is_archive", "load_scheme", "mark"]
