"""Signals that no event loop handles: the first one raises `Interrupted` in the command.

Kept free of heavy imports: it is in place before anything else is imported.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SERVICES: Final = (
    ("up",),
    ("broker",),
    ("web",),
    ("worker",),
    ("monitor", "publish"),
    ("monitor", "stats"),
    ("workqueue", "consume"),
    ("grading", "demonstrator"),
    ("grading", "assistant"),
    ("grading", "coordinator"),
    ("grading", "run"),
    ("crawl", "crawler"),
    ("crawl", "processor"),
    ("crawl", "keeper"),
    ("crawl", "run"),
)
"""Commands that run until a signal, as do all others with --watch or --follow."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM. No Exception, and no KeyboardInterrupt: the argument parser handles that one itself."""


def raise_when_interrupted() -> None:
    """Let the first SIGINT or SIGTERM raise Interrupted in the main thread; the next ones are ignored then."""
    if threading.current_thread() is not threading.main_thread():
        return  # only that one may have handlers

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    for number in SIGNALS:
        signal.signal(number, interrupt)


def runs_until_told(arguments: Sequence[str]) -> bool:
    """Return whether a signal is the ordinary end of this command line."""
    if "--help" in arguments:
        return False
    words = tuple(word for word in arguments if not word.startswith("-"))
    return words[:1] in _SERVICES or words[:2] in _SERVICES or not {"--watch", "--follow"}.isdisjoint(arguments)
