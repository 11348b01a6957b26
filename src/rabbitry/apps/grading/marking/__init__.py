"""Marking of submissions: a marking scheme's commands and tests, run on a submission in a sandbox."""

from __future__ import annotations

from rabbitry.apps.grading.marking._formats import is_archive
from rabbitry.apps.grading.marking.marker import Marking, PartResult, mark
from rabbitry.apps.grading.marking.scheme import Scheme, load_scheme

__all__ = ["Marking", "PartResult", "Scheme", "is_archive", "load_scheme", "mark"]
