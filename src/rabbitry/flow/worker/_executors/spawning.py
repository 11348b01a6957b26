"""Processes of multiprocessing that import nothing from the current folder.

Python is started with -c for such a process, which puts the current folder first on the import path. The modules of the
standard library that multiprocessing needs are imported before the path of the parent is set: a copy.py that somebody
saved in that folder would be run in their place. The option -P leaves the folder out.
"""

from __future__ import annotations

import threading
from multiprocessing import util
from multiprocessing.context import SpawnProcess
from typing import Any, Final, cast

_lock: Final = threading.Lock()
_OPTIONS: Final = "_args_from_interpreter_flags"


def start(process: SpawnProcess) -> None:
    """Start a process, and multiprocessing's resource tracker if there is none, with the option -P.

    What the process runs has the import path of this program, as any process of multiprocessing. Where it starts Python
    itself, the option is not passed on, as PYTHONSAFEPATH in the environment would be.
    """
    # multiprocessing has no parameter for options of Python: it asks this function for them. A process that another
    # thread starts meanwhile gets the option, too, which changes nothing else for it.
    namespace = cast("Any", util)
    with _lock:
        theirs = getattr(namespace, _OPTIONS)
        setattr(namespace, _OPTIONS, lambda: [*theirs(), "-P"])
        try:
            process.start()
        finally:
            setattr(namespace, _OPTIONS, theirs)
