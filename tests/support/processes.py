"""Looking at processes that may end, or are being started, at that moment."""

import psutil


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children_of(pid: int) -> dict[str, psutil.Process]:
    """Return the children of `rabbitry up` by their subcommand; one that has just been started may be missing."""
    found = {}
    for child in psutil.Process(pid).children():
        try:
            words, name = child.cmdline(), child.name()
        except psutil.NoSuchProcess:  # it ended since it was listed
            continue
        # Before it executes that, or names itself as `tests/support/forking.py` does, it is a copy of its parent.
        if words[1:4] == ["-P", "-m", "rabbitry"]:
            found[words[4]] = child
        elif name.startswith(":"):
            found[name[1:]] = child
    return found
