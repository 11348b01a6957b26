"""Wrappers found before the system's programs, which start these with sizes that fit the part's limits."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Final

from rabbitry.apps.grading.marking._workspace import put
from rabbitry.apps.grading.marking.scheme import Limits

FOLDER: Final = "bin"
"""Their folder, inside the part's folder."""

_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_MIB: Final = 1024 * 1024


def put_tools(part: Path, limits: Limits) -> None:
    """Write the wrappers for a part with these limits into its folder."""
    put(part, FOLDER)
    # A JVM sizes itself by the machine's whole memory, and fails if it can't have that much.
    heap = max(4, limits.memory // _MIB // 2)
    options = [f"-Xmx{heap}m", f"-Xms{max(2, heap // 32)}m", f"-XX:ReservedCodeCacheSize={max(8, min(64, heap // 4))}m"]
    options += ["-XX:CompressedClassSpaceSize=64m", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
    for name, prefix in {"java": "", "javac": "-J"}.items():
        program = shutil.which(name, path=_SYSTEM_PATH)
        if program is not None:
            words = [program, *(prefix + option for option in options)]
            put(part / FOLDER, name, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'.encode())
            (part / FOLDER / name).chmod(0o755)
