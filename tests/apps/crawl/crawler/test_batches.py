"""Fetching a batch: order, delays, and batches that end early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from rabbitry.apps.crawl.crawler import batches
from rabbitry.apps.crawl.crawler.batches import Crawler, Item, Means
from rabbitry.apps.crawl.crawler.budgets import CPU, Bandwidth, Room
from rabbitry.apps.crawl.crawler.fetching import BatchHosts, Page
from rabbitry.apps.crawl.crawler.line import Line
from rabbitry.apps.crawl.messages import Address, Batch, Outcome, Report
from rabbitry.apps.crawl.node import Node
from rabbitry.exceptions import RequestTimeout
from rabbitry.runtime.tasks import background
from tests.apps.crawl.crawler._fetching import PAGE, answer, fetching, serving
from tests.support.waiting import eventually

ORIGIN = "http://a.example"


def batch_of(
    *paths: str, origin: str = ORIGIN, delay: float = 0.0, within: float = 60.0, connections: int = 1
) -> Batch:
    addresses = [Address(f"{origin}/{path}") for path in paths]
    return Batch("b1", origin, addresses, delay, time.time() + within, connections=connections)


class Script:
    """A fetcher with answers set by the test: outcomes by path, `page` for any other path.

    asked: the paths, in order, with the time. wait: awaited before each answer.
    """

    def __init__(self, outcomes: dict[str, str] | None = None, *, retry_after: float | None = None) -> None:
        self.outcomes = outcomes or {}
        self.retry_after = retry_after
        self.asked: list[tuple[str, float]] = []
        self.ended: list[float] = []
        self.wait: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.running = self.most = 0

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def host(self, batch: Batch) -> BatchHosts:
        return cast("BatchHosts", None)

    async def fetch(self, address: Address, batch: Batch, host: BatchHosts) -> Page | Outcome:
        path = address.url.rpartition("/")[2]
        self.asked.append((path, time.monotonic()))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.wait()
        finally:
            self.running -= 1
            self.ended.append(time.monotonic())
        outcome = self.outcomes.get(path, "page")
        if outcome == "page":
            return Page(address.url, address.url, "page", 200, b"x", "text/html", {}, time.time(), 1, 1, 0.0)
        return Outcome(batch.id, address.url, outcome, time.time(), "c1", retry_after=self.retry_after)


def crawler_of(script: Script, cpu: CPU | None = None, room: Room | None = None) -> Crawler:
    return Crawler(Node("crawler", "c1"), Means(script, room or Room(1 << 20), Bandwidth(None), cpu or CPU(None)))


async def all_of(crawler: Crawler, batch: Batch, **options: Any) -> tuple[list[Item], Report]:
    items = [item async for item in crawler.crawl(batch, **options)]
    report = items.pop()
    assert isinstance(report, Report)
    assert not any(isinstance(item, Report) for item in items)
    return items, report


async def test_no_request_to_a_host_with_a_delay_while_the_broker_is_silent() -> None:
    script, line = Script(), Line()
    crawler = Crawler(Node("crawler", "c1"), Means(script, Room(1 << 20), Bandwidth(None), CPU(None), line))
    answers: asyncio.Queue[Exception | None] = asyncio.Queue()
    asked = asyncio.Event()

    async def ask(within: float) -> None:
        asked.set()
        if (error := await answers.get()) is not None:
            raise error

    async with background(line.watch(ask)):
        await asked.wait()
        assert line.answers, "nobody knows better"
        answers.put_nowait(RequestTimeout("no answer"))
        await eventually(lambda: not line.answers, "there is no answer")
        crawling = asyncio.create_task(all_of(crawler, batch_of("a", "b", delay=0.001)))
        items, _ = await all_of(crawler, batch_of("c", "d"))
        assert (len(items), script.paths) == (2, ["c", "d"]), "a host without a delay is asked all the same"
        answers.put_nowait(None)
        items, report = await crawling
        assert (len(items), report.left, script.paths[2:]) == (2, [], ["a", "b"])


async def test_addresses_not_requested_in_time_are_returned() -> None:
    script, line = Script(), Line()
    crawler = Crawler(Node("crawler", "c1"), Means(script, Room(1 << 20), Bandwidth(None), CPU(None), line))
    line._answers.clear()
    items, report = await all_of(crawler, batch_of("a", "b", delay=0.001, within=0.05))
    assert (items, len(report.left), report.why) == ([], 2, "late")


async def test_each_address_is_requested_once_and_a_report_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script({"2": "client-error"})
    clock = batches._clock

    def slow() -> float:
        """Stop the clock after the last request, as if the report came at once."""
        return ended if len(script.ended) == 3 else clock()

    ended = clock() + 1.0
    monkeypatch.setattr(batches, "_clock", slow)
    items, report = await all_of(crawler_of(script), batch_of("1", "2", "3", delay=0.01))
    assert [type(item).__name__ for item in items] == ["Page", "Outcome", "Page"]
    assert script.paths == ["1", "2", "3"]
    assert (report.batch, report.origin, report.crawler, report.left, report.why) == ("b1", ORIGIN, "c1", [], "")
    assert report.wait == pytest.approx(0.01)


async def test_empty_batch_is_a_report() -> None:
    items, report = await all_of(crawler_of(Script()), batch_of())
    assert (items, report.left, report.wait) == ([], [], 0.0)


async def test_a_host_has_its_delay_from_an_answer_to_the_next_request() -> None:
    script = Script()
    script.wait = lambda: asyncio.sleep(0.02)
    await all_of(crawler_of(script), batch_of(*"1234", delay=0.05, connections=4))
    gaps = [began - ended for (_, began), ended in zip(script.asked[1:], script.ended, strict=False)]
    assert len(gaps) == 3
    assert min(gaps) >= 0.05
    assert script.most == 1


async def test_connections_of_a_batch_are_used_at_once_and_no_more() -> None:
    script = Script()
    script.wait = lambda: asyncio.sleep(0.01)
    items, _ = await all_of(crawler_of(script), batch_of(*map(str, range(20)), connections=4))
    assert script.most == 4
    assert len({item.url for item in items if isinstance(item, Page)}) == 20
    await all_of(crawler_of(script), batch_of(*map(str, range(50)), connections=1000))
    assert script.most == batches.MOST_CONNECTIONS


async def test_a_redelivered_batch_is_returned_without_a_request() -> None:
    script = Script()
    items, report = await all_of(crawler_of(script), batch_of("1", "2", delay=7.0), is_repeated=True)
    assert (items, script.asked) == ([], [])
    assert (report.left, report.why) == ([f"{ORIGIN}/1", f"{ORIGIN}/2"], "interrupted")
    assert report.wait == 7.0 + batches.TAKEOVER  # the previous crawler may not know yet that it lost the batch


async def test_with_a_delay_no_request_before_the_broker_took_the_last_page() -> None:
    script = Script()
    crawl = crawler_of(script).crawl(batch_of("1", "2", "3", delay=1e-9))
    await anext(crawl)
    for _ in range(100):  # the publisher still holds the page
        await asyncio.sleep(0)
    assert script.paths == ["1"]
    await anext(crawl)
    assert script.paths == ["1", "2"]
    await crawl.aclose()


async def test_a_deadline_far_away_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONGEST", 30.0)
    script = Script()
    _, report = await all_of(crawler_of(script), batch_of("1", "2", delay=1e300, within=1e308))
    assert (script.paths, report.left, report.why) == (["1"], [f"{ORIGIN}/2"], "late")


async def test_no_request_begins_after_the_deadline() -> None:
    script = Script()
    _, report = await all_of(crawler_of(script), batch_of("1", "2", within=-1.0))
    assert (script.asked, report.why, len(report.left)) == ([], "late", 2)


async def test_the_rest_is_returned_at_once_if_the_delay_exceeds_the_deadline() -> None:
    script = Script()
    items, report = await all_of(crawler_of(script), batch_of("1", "2", "3", delay=600.0, within=30.0))
    assert (len(items), report.left, report.why) == (1, [f"{ORIGIN}/2", f"{ORIGIN}/3"], "late")
    assert 590 < report.wait <= 600


@pytest.mark.parametrize(("retry_after", "wait"), [(None, 0.1), (500.0, 500.0), (0.0, 0.1)])
async def test_a_host_that_asks_to_wait_is_left_alone(retry_after: float | None, wait: float) -> None:
    script = Script({"2": "slow-down"}, retry_after=retry_after)
    items, report = await all_of(crawler_of(script), batch_of("1", "2", "3", delay=0.1))
    assert (len(items), report.left, report.why) == (2, [f"{ORIGIN}/3"], "blocked")
    assert wait - 1 < report.wait <= wait


async def test_a_silent_host_is_left_alone_after_three_requests() -> None:
    script = Script(dict.fromkeys("13456", "no-connection"))
    items, report = await all_of(crawler_of(script), batch_of(*"123456"))
    assert script.paths == list("12345")
    assert (len(items), report.left, report.why) == (5, [f"{ORIGIN}/6"], "blocked")
    assert 50 < report.wait <= 60


@pytest.mark.parametrize("outcome", sorted(batches._UNASKED))
async def test_no_delay_follows_without_a_request(outcome: str) -> None:
    script = Script(dict.fromkeys("123", outcome))
    _, report = await all_of(crawler_of(script), batch_of(*"123", delay=100.0))
    assert (len(script.asked), report.left, report.wait) == (3, [], 0.0)


async def test_a_crawler_that_woke_too_late_requests_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now, first = 1000.0, batches._first

    async def stopped(*arguments: Any) -> None:
        nonlocal now
        await first(*arguments)
        now += 0.05 + batches.JUMP + 0.1  # as if the process had been stopped while it waits for the delay

    monkeypatch.setattr(batches, "_clock", lambda: now)
    monkeypatch.setattr(batches, "_first", stopped)
    script = Script()
    crawl = crawler_of(script).crawl(batch_of("1", "2", "3", delay=0.05))
    await anext(crawl)
    report = await anext(crawl)
    assert isinstance(report, Report)
    assert (script.paths, report.why, len(report.left)) == (["1"], "interrupted", 2)
    await crawl.aclose()


async def test_stop_ends_a_wait_and_returns_the_rest() -> None:
    script = Script()
    crawler = crawler_of(script)
    crawl = crawler.crawl(batch_of("1", "2", "3", delay=50.0))
    assert isinstance(await anext(crawl), Page)
    waiting = asyncio.ensure_future(anext(crawl))
    await asyncio.sleep(0)
    crawler.stop()
    report = await waiting
    assert isinstance(report, Report)
    assert (report.left, report.why) == ([f"{ORIGIN}/2", f"{ORIGIN}/3"], "interrupted")
    with pytest.raises(StopAsyncIteration):
        await anext(crawl)


async def test_stop_lets_a_running_request_end() -> None:
    script = Script()
    done = asyncio.Event()
    script.wait = done.wait
    crawler = crawler_of(script)
    task = asyncio.create_task(all_of(crawler, batch_of("1", "2")))
    await eventually(lambda: script.asked, "a request")
    crawler.stop()
    done.set()
    items, report = await task
    assert (len(items), report.left) == (1, [f"{ORIGIN}/2"])


async def test_stop_returns_a_request_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "STOP_WITHIN", 0.05)
    script = Script()
    script.wait = asyncio.Event().wait
    crawler = crawler_of(script)
    task = asyncio.create_task(all_of(crawler, batch_of("1", "2")))
    await eventually(lambda: script.asked, "a request")
    crawler.stop()
    items, report = await task
    assert (items, report.left, report.why) == ([], [f"{ORIGIN}/1", f"{ORIGIN}/2"], "interrupted")


async def test_closing_the_generator_ends_its_requests() -> None:
    script = Script()
    room = Room(1 << 20)
    crawl = crawler_of(script, room=room).crawl(batch_of(*map(str, range(50)), connections=4))
    await anext(crawl)
    script.wait = asyncio.Event().wait
    await crawl.aclose()
    assert script.running == 0


async def test_an_error_of_the_fetcher_is_an_error_of_the_batch() -> None:
    script = Script()

    async def fail() -> None:
        raise RuntimeError("a defect")

    script.wait = fail
    with pytest.raises(RuntimeError, match="a defect"):
        await all_of(crawler_of(script), batch_of("1"))
    with pytest.raises(ExceptionGroup) as raised:
        await all_of(crawler_of(script), batch_of("1", "2", connections=2))
    assert raised.group_contains(RuntimeError, match="a defect")


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_page_of_a_lost_batch_frees_its_memory(connections: int) -> None:
    room = Room(1 << 20)
    crawl = crawler_of(Script(), room=room).crawl(batch_of("1", "2", "3", connections=connections))
    room.came(await anext(crawl), 1000)
    await crawl.aclose()
    assert room.total == 0


async def test_a_slow_consumer_delays_the_batch() -> None:
    script = Script()
    crawl = crawler_of(script).crawl(batch_of(*map(str, range(50))))
    await anext(crawl)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(script.asked) < 10
    await crawl.aclose()


async def test_no_request_begins_while_memory_is_full() -> None:
    script, room, other = Script(), Room(100), object()
    room.hold(other, 100)
    task = asyncio.create_task(all_of(crawler_of(script, room=room), batch_of("1")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert script.asked == []
    room.release(other)
    items, _ = await task
    assert len(items) == 1


async def test_the_cpu_limit_delays_requests() -> None:
    used = 0.0

    async def work() -> None:
        nonlocal used
        used += 0.02

    script = Script()
    script.wait = work
    began = time.monotonic()
    await all_of(crawler_of(script, CPU(0.5, used=lambda: used)), batch_of(*"12345678"))
    # Eight pieces of 0.02 s at half a core take 0.28 s before the last one begins, minus the budget saved before.
    assert time.monotonic() - began >= 0.28 - 0.25 * 0.5 - 0.02


# -- against a server ------------------------------------------------------------------------------------


async def test_connection_is_one_for_host_and_batch() -> None:
    replies = {f"/{path}": answer(PAGE) for path in range(20)}
    async with serving(replies) as server:
        with fetching() as hand:
            crawler = Crawler(Node("crawler"), Means(hand.fetcher, hand.room, Bandwidth(None), CPU(None)))
            origin = f"http://127.0.0.1:{server.port}"
            items, _ = await all_of(crawler, batch_of(*map(str, range(20)), origin=origin))
    assert len(items) == 20
    assert server.connections == 1
    assert hand.room.total == 0


async def test_name_is_resolved_once_for_a_batch() -> None:
    async with serving({"/1": answer(PAGE), "/2": answer(PAGE, "200 OK", "Connection: close")}) as server:
        with fetching(["127.0.0.1"], {"re.example": [["127.0.0.1"], ["127.0.0.2"]]}) as hand:
            crawler = Crawler(Node("crawler"), Means(hand.fetcher, hand.room, Bandwidth(None), CPU(None)))
            origin = f"http://re.example:{server.port}"
            items, _ = await all_of(crawler, batch_of("2", "2", "1", origin=origin))
    assert [type(item) for item in items] == [Page] * 3
    assert hand.names.asked == ["re.example"]
    assert server.connections == 3
