"""Signals that no event loop handles: the first one raises `Interrupted` in the command.

Kept free of heavy imports: it is in place before anything else is imported.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM. No Exception, and no KeyboardInterrupt: the argument parser handles that one itself."""


_came = threading.Event()


def is_interrupted() -> bool:
    """Return whether Interrupted was raised, also where a library has turned it into an error of its own.

    pydantic does so while it is imported.
    """
    return _came.is_set()


def raise_when_interrupted() -> None:
    """Let the first SIGINT or SIGTERM raise Interrupted in the main thread; the next ones are ignored then."""
    if threading.current_thread() is not threading.main_thread():
        return  # only that one may have handlers

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _came.set()
        raise Interrupted

    for number in SIGNALS:
        signal.signal(number, interrupt)
