"""Fixtures for the tests of flow: limits of time that a busy machine does not reach."""

from typing import Final

import pytest

from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker import _engine, _worker
from rabbitry.flow.worker._executors import processes, tasks, threads
from tests.support.harness import wait_longer

_LONG: Final = 30.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the broker of a worker that stops, and of whoever reads dead letters, more time than a silent one gets."""
    monkeypatch.setattr(_worker, "_SETTLING", _LONG)
    monkeypatch.setattr(_worker, "_CANCELLING", _LONG)
    monkeypatch.setattr(_engine, "_CLOSE_PATIENCE", _LONG)
    monkeypatch.setattr(dead_letters, "_DONE_WAITING", _LONG)
    wait_longer(monkeypatch)


@pytest.fixture
def time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow generators that are told to end more time to do so than those get which never do."""
    monkeypatch.setattr(tasks, "_CANCELLING", _LONG)
    monkeypatch.setattr(threads, "_CANCELLING", _LONG)
    monkeypatch.setattr(processes, "_CLOSING", _LONG)
