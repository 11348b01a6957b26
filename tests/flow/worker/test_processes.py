"""A worker process starts, and the values that it sends: at once or together, in their order, each answered."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rabbitry.flow.worker._executors import processes
from rabbitry.flow.worker._executors.processes import ProcessSlot, _Sent, _Values
from rabbitry.flow.worker._job import DONE, Product, Result
from tests.flow import _apps

WITHIN = 60.0


def _yielded(body: bytes, context: bytes | None = None) -> Result:
    return Result("yielded", (Product("key", body, "text/plain", "str"),), context=context)


class _Ended(threading.Event):
    """An event that ends the thread which waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


class _Worker:
    """The other end of a process's pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def next(self) -> tuple[int, list[bytes], Result | None]:
        """Return what is sent next: how many values, the bodies of those that go somewhere, and the result."""
        assert self._pipe.poll(WITHIN)
        sent: _Sent = self._pipe.recv()
        products = () if sent.yielded is None else sent.yielded.products
        return sent.number, [product.body for product in products], sent.result

    def answer(self, are_wanted: bool) -> None:
        self._pipe.send(are_wanted)


@pytest.fixture
def ends() -> Iterator[tuple[_Worker, _Values]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        values = _Values(theirs)
        values.begin()
        yield _Worker(ours), values


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have values that follow another one wait for ever."""
    monkeypatch.setattr(processes, "_GATHERING", float("inf"))
    monkeypatch.setattr(_Values, "_send_waiting", lambda values: None)


def test_a_value_is_sent_at_once(ends: tuple[_Worker, _Values]) -> None:
    worker, values = ends
    assert values.put(_yielded(b"1"))
    assert worker.next() == (1, [b"1"], None)


def test_values_that_follow_each_other_are_sent_together(ends: tuple[_Worker, _Values], gathering: None) -> None:
    worker, values = ends
    values.put(_yielded(b"2"))
    values.put(None)
    values.put(_yielded(b"3"))
    values.end(DONE)
    assert worker.next() == (3, [b"2", b"3"], DONE)


def test_a_last_value_is_sent_without_waiting_for_another(ends: tuple[_Worker, _Values]) -> None:
    worker, values = ends
    values._sent_at = float("inf")  # one was sent just now
    values.put(_yielded(b"1"))
    assert worker.next() == (1, [b"1"], None)
    waiting, values._is_one_waiting = values._is_one_waiting, _Ended()
    waiting.set()
    assert values._sender is not None
    values._sender.join(WITHIN)
    assert not values._sender.is_alive()


def test_values_of_another_trace_context_are_a_group_of_their_own(
    ends: tuple[_Worker, _Values], gathering: None
) -> None:
    worker, values = ends
    for body, context in ((b"1", None), (b"2", None), (b"3", b"other")):
        values.put(_yielded(body, context))
    assert worker.next() == (2, [b"1", b"2"], None)
    worker.answer(True)
    values.end(DONE)
    assert worker.next() == (1, [b"3"], DONE)


def test_a_refusal_is_noticed_after_a_few_groups(ends: tuple[_Worker, _Values], gathering: None) -> None:
    worker, values = ends
    worker.answer(False)  # to the first group
    are_wanted = [values.put(_yielded(b"x")) for _ in range(processes._MOST * (processes._AHEAD + 1))]
    assert are_wanted == [True] * (len(are_wanted) - 1) + [False]
    assert worker.next() == (processes._MOST, [b"x"] * processes._MOST, None)


def test_a_group_has_so_many_bytes_at_most(
    ends: tuple[_Worker, _Values], gathering: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, values = ends
    monkeypatch.setattr(processes, "_LARGEST", 10)
    for body in (b"123", b"456", b"7890", b"1"):
        values.put(_yielded(body))
    assert worker.next() == (3, [b"123", b"456", b"7890"], None)
    worker.answer(True)
    values.end(DONE)
    assert worker.next() == (1, [b"1"], DONE)


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('imported')\n")  # a submission that somebody saved here
    monkeypatch.chdir(tmp_path)
    slot = ProcessSlot(_apps.dangerous.stages["work"])
    try:
        slot.start()
    finally:
        slot.close()
