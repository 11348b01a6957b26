"""The page's server: messages from the broker reach the picture, and the pages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from fastapi import FastAPI

import rabbitry
from rabbitry.amqp.client import Channel, Properties, QueueInfo
from rabbitry.apps.crawl import feed, web
from rabbitry.apps.crawl.answers import AskSearch, AskStatus, Status
from rabbitry.apps.crawl.messages import Add
from rabbitry.apps.crawl.picture import Picture
from rabbitry.apps.crawl.web import Pages
from rabbitry.exceptions import ChannelClosed
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.runtime.tasks import background
from rabbitry.telemetry import Report, Reporter
from rabbitry.web.api import described
from tests.apps.crawl._fake import FakeKeeper
from tests.flow._running import eventually_consumed
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually
from tests.web.described import Described


@contextlib.asynccontextmanager
async def _fed(url: str, *, plain: bool = False) -> AsyncIterator[Pages]:
    """A picture that is fed by a broker, and its pages."""
    pages = Pages(url, plain=plain)
    async with pages.open():
        await eventually(lambda: pages.picture.broker.state == "connected", "a connection")
        yield pages


@contextlib.asynccontextmanager
async def _channel(url: str) -> AsyncIterator[Channel]:
    async with rabbitry.connect(url) as connection:
        yield await connection.channel()


async def _log(channel: Channel, *lines: bytes, headers: Mapping[str, Any] | None = None) -> None:
    properties = Properties(app_id="crawl", headers=dict(headers)) if headers else Properties()
    for line in lines:
        await channel.publish(line, exchange="exchtopic", routing_key="rlog", mandatory=False, properties=properties)


async def test_lines_of_any_program_make_nodes(broker_url: str) -> None:
    async with _fed(broker_url) as pages, _channel(broker_url) as channel:
        await _log(
            channel,
            b"crawler|a3f|2026-11-21T10:00:00|http://example.org/|log",
            b"processor|b7c|crawler|a3f|2011-11-21T10:00:00|<html>|\n|</html>|log",
            b"\x00\xff no line",
            b"",
            b"processor|b7c|" + b"<p>|" * 500_000 + b"|log",
        )
        await _log(
            channel,
            b"crawler|c01|2026-11-21T10:00:00|http://example.org/2|200",
            headers={"x-rabbitry-outcome": "page", "x-rabbitry-wire": 21_000},
        )
        totals = pages.picture.totals
        await eventually(lambda: totals.lines == 4 and totals.unread == 2, "all of it")
        assert (totals.crawled, totals.processed, totals.wire) == (2, 2, 21_000)


async def test_an_exchange_of_the_original_programs_is_used_as_it_is(broker_url: str) -> None:
    async with _channel(broker_url) as channel:
        await channel.declare_exchange("exchtopic", "topic", auto_delete=True)
        async with _fed(broker_url) as pages:
            await _log(channel, b"crawler|a3f|2011-11-21T10:00:00|http://example.org/|log")
            await eventually(lambda: pages.picture.totals.crawled, "the line")


async def test_with_plain_the_original_programs_can_come_later(broker_url: str) -> None:
    async with _fed(broker_url, plain=True) as pages, _channel(broker_url) as channel:
        await channel.declare_exchange("exchtopic", "topic", auto_delete=True)  # raises if it is not so
        await _log(channel, b"crawler|a3f|2011-11-21T10:00:00|http://example.org/|log")
        await eventually(lambda: pages.picture.totals.crawled, "the line")


async def test_queues_are_checked_and_may_be_missing(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.02)
    async with _fed(broker_url) as pages, _channel(broker_url) as channel:
        picture = pages.picture
        await eventually(lambda: picture.queues, "the first look")
        assert picture.queues["proc"] is None
        await channel.declare_queue("proc", durable=True)
        await channel.publish(b"page", routing_key="proc")

        def waiting() -> tuple[int, int] | None:
            queue = picture.queues["proc"]
            return None if queue is None else (queue.messages, queue.consumers)

        await eventually(lambda: waiting() == (1, 0), "a page that waits")
        async with channel.consume("proc"):
            await eventually(lambda: waiting() == (0, 1), "its consumer")


async def test_a_missing_queue_is_checked_rarely_and_when_a_node_appears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 1000.0)
    asked: list[str] = []

    class Missing:
        async def declare_queue(self, name: str, *, passive: bool) -> QueueInfo:
            asked.append(name)
            if name == "proc":
                return QueueInfo(name, 3, 1)
            raise ChannelClosed(404, f"no queue '{name}'")

        async def open(self) -> None: ...

    picture = Picture("amqp://here/")
    looking, channel = feed._Looking(picture), Missing()

    async def look() -> list[str]:
        asked.clear()
        found = await looking.look(channel)  # type: ignore[arg-type] # the part of a channel that it uses
        assert {name: queue is not None for name, queue in found.items()} == {
            name: name == "proc" for name in feed.LOOKED_AT
        }
        return list(asked)

    assert await look() == [*feed.LOOKED_AT]
    assert await look() == ["proc"]
    picture.receive(b"crawler|a3f|2011-11-21T10:00:00|http://example.org/|log", None, is_ours=False)
    assert await look() == [*feed.LOOKED_AT]
    picture.receive(b"crawler|a3f|2011-11-21T10:00:01|http://example.org/|log", None, is_ours=False)
    assert await look() == ["proc"]


async def test_telemetry_makes_nodes(broker_url: str) -> None:
    report = Report("heartbeat", "crawl", "keeper", "c01e", "machine-1", 7, 1.0, 1.0)
    async with _fed(broker_url) as pages, rabbitry.connect(broker_url) as connection:
        reporting = asyncio.create_task(Reporter(connection, lambda kind: [report]).run())
        try:
            await eventually(lambda: pages.picture.has("keeper|c01e"), "the keeper")
        finally:
            reporting.cancel()
            await asyncio.wait((reporting,))


async def test_the_feed_comes_back_with_its_broker() -> None:
    with BrokerProcess() as broker:
        async with _fed(broker.url) as pages:
            picture = pages.picture
            broker.kill()
            await eventually(lambda: picture.broker.state == "away", "the loss")
            broker.start()
            await eventually(lambda: picture.broker.state == "connected", "the return")
            async with _channel(broker.url) as channel:
                await _log(channel, b"crawler|a3f|t|u|log")
                await eventually(lambda: picture.totals.crawled, "the line")


async def test_a_refused_login_is_shown_and_affects_nothing_else(embedded_url: str) -> None:
    pages = Pages(embedded_url.replace("guest:guest", "guest:wrong"))
    async with pages.open():
        await eventually(lambda: pages.picture.broker.state == "refused", "the refusal")
        assert "wrong" not in pages.picture.broker.reason
        assert "wrong" not in pages.picture.broker.where


async def test_a_flood_of_lines_is_read_in_turns_and_reported(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(feed, "PREFETCH", 10)
    monkeypatch.setattr(feed, "MOST_A_TURN", 10)
    monkeypatch.setattr(feed, "TURN", 60.0)
    monkeypatch.setattr(feed, "LONGEST", 20)
    async with _fed(broker_url) as pages, _channel(broker_url) as channel:
        await _log(channel, *(b"crawler|%x|t|u|log" % number for number in range(200)))
        totals = pages.picture.totals
        await eventually(lambda: totals.overrun, "that lines wait")
        assert totals.lines == 10


async def test_a_page_gets_the_picture_and_its_changes(embedded_url: str) -> None:
    pages = Pages(embedded_url)
    app = FastAPI(lifespan=lambda _: pages.open())
    app.include_router(pages.router)
    (listener,) = listen("127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        async with (
            asyncio.timeout(60),
            websockets.connect(url, proxy=None) as socket,
            _channel(embedded_url) as channel,
        ):
            first = json.loads(await socket.recv())
            assert first["reset"]
            assert "guest" not in first["broker"]["where"]
            await eventually(lambda: pages.picture.broker.state == "connected", "a connection")
            await _log(channel, b"crawler|<b>|2026-11-21T10:00:00|http://example.org/|log")
            while "nodes" not in (update := json.loads(await socket.recv())):
                assert len(json.dumps(update)) < 2000
            node = update["nodes"]["crawler|<b>"]
            assert (node["kind"], node["id"], node["total"]) == ("crawler", "<b>", 1)
    finally:
        stop.set()
        await serving


# -- the keeper ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _asking(url: str, keeper: FakeKeeper) -> AsyncIterator[httpx.AsyncClient]:
    """The page's API beside a program that answers questions."""
    pages = Pages(url, keeper)
    app = FastAPI()
    app.include_router(pages.router)
    async with _channel(url) as channel:
        await channel.declare_queue("crawl.questions", durable=True)
        # The consumer starts first: the latest look at the queues decides whether there is a keeper.
        async with channel.consume("crawl.questions"), pages.open():
            await eventually(lambda: pages.picture.queues, "the first look")
            transport, hooks = httpx.ASGITransport(app), {"response": [Described(described(app)).check]}
            async with httpx.AsyncClient(transport=transport, base_url="http://x", event_hooks=hooks) as http:
                yield http


async def test_the_keepers_answers_are_shared_by_all_pages(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "KEPT", 1000.0)
    keeper = FakeKeeper()
    async with _asking(embedded_url, keeper) as http:
        status = (await http.get("/api/status")).json()
        assert status["answer"]["documents"] == 1198
        assert status["at"] <= status["now"]
        assert (await http.get("/api/status")).json()["at"] == status["at"]
        assert keeper.asked == [AskStatus()]
        hosts = (await http.get("/api/hosts?page=2")).json()
        assert (len(hosts["answer"]["hosts"]), hosts["answer"]["total"], hosts["each"]) == (20, 120, 50)
        await http.get("/api/search", params={"words": "x" * 10_000})
        assert keeper.asked[-1] == AskSearch("x" * 1_001, 50, 0)  # one more than is read, so that the keeper notes it
        found = (await http.get("/api/search", params={"words": " two words "})).json()["answer"]
        assert (found["total"], "two words" in found["hits"][0]["snippet"]) == (2, True)
        why = (await http.get("/api/why", params={"url": "http://a/?x=1&y=#z"})).json()["answer"]
        assert (why["url"], why["decisions"][0]["node"]) == ("http://a/?x=1&y=#z", "keeper c01e")
        assert (await http.get("/api/outcomes")).json()["trap"].startswith("one of a family")


async def test_answers_that_are_kept_are_bounded(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "KEPT", 1000.0)
    monkeypatch.setattr(web, "MOST_KEPT", 3)
    keeper = FakeKeeper()
    async with _asking(embedded_url, keeper) as http:
        for words in ("a", "b", "c", "d", "d", "a"):
            await http.get("/api/search", params={"words": words})
        assert [question.words for question in keeper.asked if isinstance(question, AskSearch)] == [*"abcda"]


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("search?words=", 400, "a search must have at least one"),
        ("search?words=%20", 400, "a search must have at least one"),
        ("search", 400, "words"),
        ("search?words=refuse", 400, "makes no sense"),
        ("search?words=broken", 503, "database is locked"),
        ("hosts?page=-1", 400, "page"),
        ("hosts?page=9999999999999", 400, "page"),
        ("why?url=%20", 400, "an address must have"),
        (f"why?url={'x' * 10_001}", 400, "an address must have"),
    ],
)
async def test_invalid_queries_are_refused(embedded_url: str, path: str, status: int, why: str) -> None:
    async with _asking(embedded_url, FakeKeeper()) as http:
        answer = await http.get(f"/api/{path}")
        assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text


async def test_commands_reach_the_keeper(embedded_url: str) -> None:
    keeper = FakeKeeper()
    async with _asking(embedded_url, keeper) as http:
        form = {
            "command": "add",
            "urls": [" http://a/ ", "", "http://b/"],
            "depth": 2,
            "same_host": True,
            "contact": " ",
        }
        answer = await http.post("/api/command", json=form)
        assert [taken["url"] for taken in answer.json()["addresses"]] == ["http://a/", "http://b/"]
        assert keeper.told == [Add(["http://a/", "http://b/"], depth=2, same_host=True)]
        before = (await http.get("/api/status")).json()["answer"]
        assert (await http.post("/api/command", json={"command": "pause"})).status_code == 200
        after = (await http.get("/api/status")).json()["answer"]
        assert ("is_paused" in before, after["is_paused"]) == (False, True)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a command"),
        (b"{", "not a command"),
        (b'{"command": "drop"}', "not a command"),
        (b'{"command": "tick", "keeper": "c01e"}', "keepers do"),
        (b'{"command": "add", "urls": ["  "]}', "no address"),
        (b'{"command": "add", "urls": "http://a/"}', "not a command"),
        (b'{"command": "add", "urls": ["http://a/"], "depth": "2"}', "not a command"),
        (b'{"command": "add", "urls": ["http://refused/"]}', "needs --contact"),
        (b'{"command": "add", "urls": ["' + b"x" * 1_000_000 + b'"]}', "too large"),
    ],
)
async def test_invalid_commands_are_refused(embedded_url: str, body: bytes, why: str) -> None:
    async with _asking(embedded_url, FakeKeeper()) as http:
        answer = await http.post("/api/command", content=body)
        assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


async def test_without_a_keeper_the_api_answers_with_advice(broker_url: str) -> None:
    pages = Pages(broker_url)
    app = FastAPI()
    app.include_router(pages.router)
    async with pages.open(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        await eventually(lambda: pages.picture.queues, "the first look")
        answer = await http.get("/api/status")
        assert (answer.status_code, "rabbitry crawl keeper" in answer.json()["missing"]) == (200, True)
        kept = await http.post("/api/command", json={"command": "add", "urls": ["http://a/"]})
        assert (kept.status_code, "rabbitry crawl keeper" in kept.json()["said"][0]) == (200, True), kept.text
        async with _channel(broker_url) as channel:
            waiting = await channel.get("crawl.keeper", no_ack=True)
            assert waiting is not None
            assert json.loads(waiting.body) == {"command": "add", "urls": ["http://a/"]}
        pages.picture.set_broker("away", "gone")
        assert "broker is away" in (await http.get("/api/hosts")).json()["missing"]
        refused = await http.post("/api/command", json={"command": "pause"})
        assert (refused.status_code, "broker is away" in refused.json()["error"]) == (503, True)


async def test_a_query_over_the_broker_is_answered(broker_url: str) -> None:
    """The real `Asking`, and a keeper whose first answer is invalid."""
    pages = Pages(broker_url)
    app = FastAPI()
    app.include_router(pages.router)
    answers = iter((b"nonsense", msgspec.json.encode(Status(1.0, documents=7))))

    async def reply(channel: Channel) -> None:
        async with channel.consume("crawl.questions", no_ack=True) as questions:
            async for question in questions:
                await channel.publish(
                    next(answers),
                    routing_key=question.properties.reply_to or "",
                    mandatory=False,
                    properties=Properties(correlation_id=question.properties.correlation_id),
                )

    async with _channel(broker_url) as channel:
        await channel.declare_queue("crawl.questions", durable=True)
        async with background(reply(channel)):
            await eventually_consumed(broker_url, "crawl.questions", 1)
            async with pages.open(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
                await eventually(lambda: pages.picture.queues, "the first look")
                wrong = await http.get("/api/status")
                assert (wrong.status_code, "can't be decoded" in wrong.json()["error"]) == (503, True), wrong.text
                assert (await http.get("/api/status")).json()["answer"]["documents"] == 7


async def test_a_silent_keeper_is_reported(embedded_url: str) -> None:
    async with _asking(embedded_url, FakeKeeper(is_silent=True)) as http:
        answer = await http.get("/api/status")
        assert (answer.status_code, answer.json()["error"]) == (503, "no keeper answered within 5 s")
