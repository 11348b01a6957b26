"""Processes of multiprocessing take no module from the current folder, and start Python as usual."""

import multiprocessing
import subprocess
import sys
from multiprocessing import util
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rabbitry.flow.worker._executors import spawning


def _tell(pipe: Connection) -> None:
    """Send whether -P is set in this process, and in a Python that it starts."""
    started = subprocess.run(
        [sys.executable, "-c", "import sys; sys.exit(sys.flags.safe_path)"], cwd="/", check=False, timeout=100
    )
    pipe.send((sys.flags.safe_path, bool(started.returncode)))


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copy.py", "pickle.py", "socket.py"):  # a submission that somebody saved here
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    context = multiprocessing.get_context("spawn")
    options = util._args_from_interpreter_flags  # type: ignore[attr-defined]  # not in its stub
    ours, theirs = context.Pipe()
    with ours, theirs:
        process = context.Process(target=_tell, args=(theirs,))
        spawning.start(process)
        theirs.close()  # so that its death is seen here
        try:
            assert ours.poll(100)
            assert ours.recv() == (True, False)
        finally:
            process.kill()
            process.join()
    assert util._args_from_interpreter_flags is options  # type: ignore[attr-defined]  # not in its stub
