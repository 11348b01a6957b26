"""The dispatcher: which queues deliver, and in which order."""

import asyncio
from collections.abc import Callable

import pytest

from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._shares import Shares
from tests.support.waiting import eventually


class _Queue:
    """Notes its name when it delivers, and touches others then."""

    def __init__(self, name: str, seen: list[str], then: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._seen = seen
        self._then = then

    def dispatch(self) -> None:
        self._seen.append(self._name)
        self._then()


def test_each_queue_delivers_once_in_the_order_of_the_first_touch() -> None:
    seen: list[str] = []
    one, two = _Queue("one", seen), _Queue("two", seen)
    dispatcher = Dispatcher(Shares())
    for queue in (two, one, two):
        dispatcher.touch(queue)
    dispatcher.dispatch()
    dispatcher.dispatch()
    assert seen == ["two", "one"]


def test_queues_touched_during_a_round_deliver_last() -> None:
    seen: list[str] = []
    dispatcher = Dispatcher(Shares())
    dead = _Queue("dead letters", seen)
    dispatcher.touch(_Queue("source", seen, lambda: dispatcher.touch(dead)))
    dispatcher.touch(_Queue("other", seen))
    dispatcher.dispatch()
    assert seen == ["source", "other", "dead letters"]


async def test_an_endless_round_lets_the_loop_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._dispatcher._LONGEST_DISPATCH", 0.0)
    seen: list[str] = []
    shares = Shares()
    dispatcher = Dispatcher(shares)
    endless = _Queue("endless", seen, lambda: dispatcher.touch(endless))
    dispatcher.touch(endless)
    dispatcher.dispatch()
    before = len(seen)
    assert before < 1000
    await asyncio.sleep(0)
    await eventually(lambda: len(seen) > before, "it goes on in a later turn")
    shares.stop()
