"""The scheduler: large chunks of many clients are not all processed in one iteration of the event loop."""

import asyncio
from collections.abc import Callable

import pytest

from rabbitry.broker import _shares as shares_module
from rabbitry.broker._shares import Shares


async def test_enough_work_in_one_turn_leaves_the_rest_to_the_next() -> None:
    shares = Shares()
    granted = [shares.may_go_on(1_000) for _ in range(10)]
    assert granted == [True] * 4 + [False] * 6
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shares.may_go_on(1_000)


async def test_waiting_clients_go_first() -> None:
    shares = Shares()
    served: list[str] = []
    shares.wait(lambda: served.append("waiting"))
    assert not shares.may_go_on(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert served == ["waiting"]
    assert shares.may_go_on(1)


async def test_an_error_does_not_keep_the_others_waiting() -> None:
    raised: list[BaseException | None] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context.get("exception")))
    shares = Shares()
    served: list[str] = []
    error = ValueError("a fault")

    def fail() -> None:
        raise error

    shares.wait(fail)
    shares.wait(lambda: served.append("next"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    shares.wait(lambda: served.append("later"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (raised, served) == ([error], ["next", "later"])


async def test_waiting_for_operations_includes_those_that_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "_SECONDS", 0.0)
    shares = Shares()
    await shares.finished()
    done: list[str] = []
    put_off: list[Callable[[], None]] = []

    def may_go_on(go_on: Callable[[], None]) -> bool:
        put_off.append(go_on)
        return False

    assert not shares.work(iter([None, None]), lambda: done.append("it"), may_go_on)
    waiting = asyncio.ensure_future(shares.finished())
    while put_off:
        await asyncio.sleep(0)
        assert not waiting.done()
        put_off.pop()()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await waiting
    assert done == ["it"]
