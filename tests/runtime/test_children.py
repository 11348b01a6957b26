"""Child processes that are kept running, and ended at awkward moments."""

import asyncio
import logging
import signal
from pathlib import Path

import pytest

from rabbitry.runtime import children
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.children import SHORT_RUNS, Child
from rabbitry.runtime.output import ExitCode
from tests.support.waiting import eventually


async def test_a_child_that_is_ended_while_it_waits_to_be_started_again_stays_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(children, "PAUSES", Backoff(600.0, 600.0))
    child = Child("broker", ["broker", "--memory", "--port", "0", "--no-management"], {}, ())
    with caplog.at_level(logging.WARNING, "rabbitry.runtime.children"):
        keeping = asyncio.create_task(child.keep())
        await eventually(lambda: child._process is not None, "the child to be started")
        first = child._process
        assert first is not None
        first.kill()
        await eventually(lambda: "started again in" in caplog.text, "its end to be noticed")
        await child.end()
        assert await asyncio.wait_for(keeping, 90) == 0
    assert child._process is first
    assert first.returncode == -9


async def test_a_child_that_is_ended_while_it_is_being_started_ends() -> None:
    child = Child("broker", ["broker", "--memory", "--port", "0", "--no-management"], {}, ())
    keeping = asyncio.create_task(child.keep())
    await asyncio.sleep(0)  # it has asked for the process, and has none yet
    await child.end()
    await asyncio.wait_for(keeping, 90)
    process = child._process
    assert process is not None, "the test ended it too early"
    assert process.returncode is not None


async def test_a_child_that_ends_early_each_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(children, "PAUSES", Backoff(0.01, 0.01))
    # It reports that it is ready, and then its one thread ends it like a fault of the interpreter.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nfrom rabbitry.runtime.parent import ready\nready()\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    child = Child("broker", ["broker"], {"PYTHONPATH": str(tmp_path)})
    with caplog.at_level(logging.INFO, "rabbitry.runtime.children"):
        assert await asyncio.wait_for(child.keep(), 240) == -signal.SIGSEGV
    assert caplog.text.count("started again") == SHORT_RUNS - 1
    assert caplog.text.count("is back") == SHORT_RUNS - 1


async def test_files_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copy.py", "asyncio.py"):  # a submission that somebody saved here
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    # With a PYTHONPATH it is started, not forked by tests/support/forking.py.
    child = Child("broker", ["broker", "--no-such-option"], {"PYTHONPATH": str(tmp_path / "other")})
    assert await asyncio.wait_for(child.keep(), 240) == ExitCode.USAGE
