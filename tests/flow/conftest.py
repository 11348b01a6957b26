"""Fixtures for the tests of flow: limits of time that a busy machine does not reach."""

from typing import Final

import pytest

from rabbitry.flow import dead, engine, executors, processes, worker
from tests.support.harness import wait_longer

_LONG: Final = 30.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the broker of a worker that stops, and of whoever reads dead letters, more time than a silent one gets."""
    monkeypatch.setattr(worker, "_SETTLING", _LONG)
    monkeypatch.setattr(worker, "_CANCELLING", _LONG)
    monkeypatch.setattr(engine, "_CLOSE_PATIENCE", _LONG)
    monkeypatch.setattr(dead, "_DONE_WAITING", _LONG)
    wait_longer(monkeypatch)


@pytest.fixture
def time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow generators that are told to end more time to do so than those get which never do."""
    monkeypatch.setattr(executors, "_CANCELLING", _LONG)
    monkeypatch.setattr(processes, "_CLOSING", _LONG)
