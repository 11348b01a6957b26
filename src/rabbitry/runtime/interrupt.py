"""Signals while no event loop handles them: the first one raises `Interrupted` in the command.

This module imports nothing heavy, since it has to take effect before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import CodeType, FrameType
from typing import Final

if sys.platform == "win32":  # where Ctrl-Break is what a program can send to another
    SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
else:
    SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM. Neither an Exception nor a KeyboardInterrupt, which the argument parser handles itself."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_came = threading.Event()
_AGAIN: Final = 0.05
"""Seconds until a signal whose Interrupted was dropped is sent again; each further time takes twice as long."""
_LONGEST: Final = 5.0


def is_interrupted() -> bool:
    """Return whether Interrupted was raised, even if a library has replaced it with another error.

    pydantic does so while it is imported.
    """
    return _came.is_set()


def signal_self(number: int) -> None:
    """Send a signal to this process, from any of its threads."""
    if sys.platform == "win32":
        signal.raise_signal(number)  # where os.kill ends the process at once
    else:
        os.kill(os.getpid(), number)


def raise_when_interrupted() -> None:
    """Let the first SIGINT or SIGTERM raise Interrupted in the main thread; the second one ends the process with 130.

    Python drops what is raised in a finalizer or in a weak reference's callback (importing a module has one); such a
    signal is sent again until it comes elsewhere.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # only that one may have handlers

    pause = _AGAIN

    def send_again(number: int) -> None:
        nonlocal pause
        again = threading.Timer(pause, signal_self, (number,))
        again.daemon = True
        pause = min(2 * pause, _LONGEST)
        again.start()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _is_within(frame, dropped.__code__):
            # Python drops what is raised in the hook, and calls no hook for it. On a busy machine, a signal that is
            # sent again comes while the hook still waits for the start of the timer's thread.
            send_again(number)
            return
        for each in SIGNALS:
            signal.signal(each, lambda *_: os._exit(130))
        _came.set()
        raise Interrupted(number)

    def handle() -> None:
        for number in SIGNALS:
            signal.signal(number, interrupt)

    report = sys.unraisablehook

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            # Finalizers of what Interrupted left half made (an event loop, for one) fail, and the command ends anyway.
            if not is_interrupted():
                report(unraisable)
            return
        handle()
        send_again(unraisable.exc_value.number)

    sys.unraisablehook = dropped
    handle()


def _is_within(frame: FrameType | None, code: CodeType) -> bool:
    """Return whether a frame, or one that it was called from, runs this code."""
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
