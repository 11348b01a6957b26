"""Errors of handlers as text that a header, a log and JSON can carry, whatever the error is made of."""

from __future__ import annotations

import traceback
from typing import Final

LONGEST_ERROR: Final = 2_000
LONGEST_TRACEBACK: Final = 16_000
"""Characters that are kept: an error's first ones, and a traceback's last ones."""


def sendable(text: str) -> str:
    """Return `text` in valid UTF-8: lone surrogates (half an emoji, a file name that is no UTF-8) are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """Return an error's text, cut to LONGEST_ERROR characters; it never fails."""
    try:
        return sendable(str(error)[:LONGEST_ERROR])
    except BaseException as odd:  # noqa: BLE001 - a user's `__str__` may raise anything
        return f"(its text can't be had: {type(odd).__name__})"


def described(error: BaseException) -> str:
    """Return an error's type and text; it never fails."""
    text, name = text_of(error), sendable(type(error).__name__[:LONGEST_ERROR])
    return f"{name}: {text}" if text else name


def traced(error: BaseException) -> str:
    """Return an error's traceback, its last LONGEST_TRACEBACK characters; it never fails."""
    try:
        return sendable("".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:])
    except BaseException as odd:  # noqa: BLE001 - it reads attributes of a user's error, which may raise anything
        return f"(the traceback of {described(error)} can't be had: {type(odd).__name__})"
