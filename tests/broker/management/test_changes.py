"""Changes of queues: each answer has what changed since a version, and nothing is missed."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._management import changes as limits
from rabbitry.broker._management.changes import COLUMNS, Changes, News, Row
from rabbitry.broker._management.pace import Pace
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    monkeypatch.setattr(limits, "PERIOD", 0.01)
    async with Broker(BrokerConfig(port=0)) as broker:
        yield broker


def _named(row: Row) -> dict[str, object]:
    return dict(zip(COLUMNS, row, strict=True))


async def test_everything_comes_first_and_then_what_changed(broker: Broker) -> None:
    changes = Changes(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("a", durable=True, arguments={"x-max-length": 9})
        await channel.declare_queue("b")
        first = await changes.since(0, 0)
        assert first.is_whole
        assert {row[1] for row in first.rows} == {"a", "b"}
        quiet = await changes.since(first.version, 0)
        assert (quiet.is_whole, quiet.rows, quiet.gone) == (False, [], [])
        await channel.publish(b"xyz", routing_key="a")
        second = await changes.since(first.version, 20)
        (row,) = map(_named, second.rows)
        assert (row["name"], row["messages_ready"], row["message_bytes"]) == ("a", 1, 3)
        assert (row["durable"], row["arguments"]) == (True, {"x-max-length": 9})
        assert isinstance(row["publish_rate"], float)
        assert row["publish_rate"] > 0
        await channel.delete_queue("b")
        third = second
        while not third.gone:
            third = await changes.since(third.version, 20)
        assert third.gone == [("/", "b")]
        # Whoever missed an answer gets all of it.
        late = await changes.since(first.version, 0)
        assert late.gone == [("/", "b")]
        assert [row[1] for row in late.rows] == ["a"]


async def test_a_queue_that_is_declared_again_is_not_gone(broker: Broker) -> None:
    changes = Changes(broker, Pace())
    vhost = broker.vhosts["/"]

    def declare() -> None:
        vhost.declare_queue("a", None, durable=False, exclusive=False, auto_delete=False, arguments={})

    declare()
    first = (await changes.since(0, 0)).version
    vhost.delete_queue(vhost.queues["a"])
    declare()
    together = await changes.since(first, 20)
    assert ([row[1] for row in together.rows], together.gone) == (["a"], [])
    vhost.delete_queue(vhost.queues["a"])
    assert (await changes.since(together.version, 20)).gone == [("/", "a")]
    declare()
    apart = await changes.since(first, 20)
    assert ([row[1] for row in apart.rows], apart.gone) == (["a"], [])


async def test_a_broker_that_stops_answers_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_WAIT", 3600.0)
    monkeypatch.setattr(limits, "PERIOD", 0.01)
    waiting = asyncio.Event()
    since = Changes.since

    async def noted(self: Changes, version: int, wait: float) -> News:
        if wait:
            waiting.set()
        return await since(self, version, wait)

    monkeypatch.setattr(Changes, "since", noted)
    async with httpx.AsyncClient(auth=("guest", "guest"), timeout=60) as client:
        async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
            url = f"{broker.management_url}api/rabbitry/changes/queues"
            version = (await client.get(url)).json()["version"]
            asked = asyncio.create_task(client.get(url, params={"since": version, "wait": 3600}))
            await waiting.wait()
        answer = (await asked).json()
        assert (answer["version"], answer["rows"], answer["gone"]) == (version, [], [])


async def test_the_first_rate_is_whole(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("a")
        began = time.monotonic()
        version = (await changes.since(0, 0)).version
        for _ in range(100):
            await channel.publish(b"x", routing_key="a")
        news = await changes.since(version, 20)
        rate = _named(news.rows[0])["publish_rate"]
        assert isinstance(rate, float)
        assert rate + 0.1 >= 100 / (time.monotonic() - began)  # the looks are no further apart than these times
        monkeypatch.setattr(limits, "_PAUSE", 0.0)  # as if nobody had asked for long
        news = await changes.since(news.version, 20)
        assert _named(news.rows[0])["publish_rate"] == 0.0


async def test_rates_come_to_rest(broker: Broker) -> None:
    changes = Changes(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("a")
        version = (await changes.since(0, 0)).version
        await channel.publish(b"x", routing_key="a")
        row: dict[str, object] = {"publish_rate": None}
        while row["publish_rate"] != 0.0:
            news = await changes.since(version, 20)
            version = news.version
            row = _named(news.rows[0])
        assert (await changes.since(version, 0)).rows == []


async def test_all_who_ask_share_a_look(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(broker, Pace())
    await changes.since(0, 0)
    monkeypatch.setattr(limits, "PERIOD", 0.2)
    looks: list[int] = []
    note = Changes._note

    def counted(self: Changes, *arguments: object) -> None:
        looks.append(1)
        note(self, *arguments)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(Changes, "_note", counted)
    broker.vhosts["/"].declare_queue("a", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    news = await asyncio.gather(*(changes.since(0, 0) for _ in range(20)))
    assert len(looks) == 1
    assert all(each.is_whole and len(each.rows) == 1 for each in news)
    await changes.since(0, 0)
    assert len(looks) == 1, "an idle queue is noted once"


@pytest.mark.parametrize("version", [1, 1 << 62])
async def test_a_version_of_another_start_gets_everything(broker: Broker, version: int) -> None:
    assert (await Changes(broker, Pace()).since(version, 0)).is_whole


async def test_deletions_that_are_forgotten_start_it_anew(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_GONE", 1)
    changes = Changes(broker, Pace())
    vhost = broker.vhosts["/"]
    for name in ("a", "b", "c"):
        vhost.declare_queue(name, None, durable=False, exclusive=False, auto_delete=False, arguments={})
    first = (await changes.since(0, 0)).version
    for name in ("a", "b"):
        vhost.delete_queue(vhost.queues[name])
        last = await changes.since(0, 0)
    assert (await changes.since(first, 0)).is_whole
    assert not (await changes.since(last.version, 0)).is_whole


def test_over_http_by_those_who_may_see_it() -> None:
    port = free_port()
    with BrokerProcess("--management-port", str(port)):
        url = f"http://127.0.0.1:{port}/api/rabbitry/changes/queues"
        with httpx.Client(auth=("guest", "guest"), timeout=60) as client:
            found = client.get(url).json()
            assert found["whole"] is True
            assert found["columns"] == list(COLUMNS)
            later = client.get(url, params={"since": found["version"], "wait": 0}).json()
            assert (later["whole"], later["rows"], later["gone"]) == (False, [], [])
            assert client.get(url, params={"since": "x"}).status_code == 400
        assert httpx.get(url, timeout=60).status_code == 401
