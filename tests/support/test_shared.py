"""Servers of a run: one is started for all, and ended with it."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import shared


class _Marked(NamedTuple):
    """A server that leaves a file where it was ended."""

    place: str

    def end(self) -> None:
        """Note the end."""
        Path(self.place).touch()


def test_the_first_that_asks_starts_a_server_and_the_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(shared._FOLDER, "")  # restored afterwards: the servers of this run are elsewhere
    servers = shared.Servers()
    started: list[str] = []

    def start() -> _Marked:
        started.append("one")
        return _Marked(str(tmp_path / "ended"))

    assert shared.once("one", start) == shared.once("one", start)
    assert started == ["one"]
    assert not (tmp_path / "ended").exists()
    servers.close()
    assert (tmp_path / "ended").exists()
    assert not Path(os.environ[shared._FOLDER]).exists()


class _Stubborn(NamedTuple):
    """A server that can't be ended."""

    def end(self) -> None:
        """Fail."""
        raise RuntimeError("it goes on")


def test_a_server_that_cannot_be_ended_leaves_no_other_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared._FOLDER, "")
    servers = shared.Servers()
    ends = [tmp_path / f"ended{number}" for number in range(3)]
    shared.once("stubborn", _Stubborn)
    for number, place in enumerate(ends):
        shared.once(f"other{number}", lambda place=place: _Marked(str(place)))  # type: ignore[misc] # bound by its default
    with pytest.raises(RuntimeError, match="it goes on"):
        servers.close()
    assert all(place.exists() for place in ends)
    assert not shared.folder().exists()


def test_after_a_start_that_failed_the_next_one_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared._FOLDER, str(tmp_path))

    def fails() -> _Marked:
        raise RuntimeError("no port")

    with pytest.raises(RuntimeError, match="no port"):
        shared.once("one", fails)
    assert shared.once("one", lambda: _Marked("here")) == _Marked("here")
