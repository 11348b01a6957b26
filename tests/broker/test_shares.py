"""Large chunks of many clients are not all carried out in one turn of the event loop."""

import asyncio

from rabbitry.broker._shares import Shares


async def test_enough_work_in_one_turn_leaves_the_rest_to_the_next() -> None:
    shares = Shares()
    granted = [shares.may_go_on(1_000) for _ in range(10)]
    assert granted == [True] * 4 + [False] * 6
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shares.may_go_on(1_000)


async def test_who_waits_goes_first() -> None:
    shares = Shares()
    served: list[str] = []
    shares.wait(lambda: served.append("waiting"))
    assert not shares.may_go_on(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert served == ["waiting"]
    assert shares.may_go_on(1)


async def test_one_that_raises_does_not_keep_the_others_waiting() -> None:
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
