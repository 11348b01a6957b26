"""A busy keeper collects messages between transactions; a full transaction and a small crawl do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.keeper import reading, role
from rabbitry.apps.crawl.keeper.costs import LIMIT, most_of
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.role import AT_ONCE, BUSY, Role
from rabbitry.apps.crawl.keeper.state import FIRST_WINDOW, SMALLEST_WINDOW, State
from rabbitry.apps.crawl.messages import Add, Answer, Document, Link, Report, Tick
from rabbitry.apps.crawl.node import Node
from rabbitry.flow import Batch, Message


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database on SQLite."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield opened


def message(kind: str, identity: str = "m") -> Message:
    """Return the metadata of a message."""
    return Message(
        identity, "c", 1, "keeper", "crawl.keeper", "", "crawl.keeper", None, kind, "application/json", None, {}
    )


async def keep(keeper: Role, count: int) -> None:
    """Have a keeper apply `count` reports of batches that it never sent."""
    body = msgspec.json.encode(Report("none", "http://a.test", "c1", 0.0, 0.0))
    await keeper.keep([body] * count, [message("Report")] * count, Batch(count))


@pytest.mark.parametrize("count", [1, BUSY - 1, AT_ONCE])
async def test_few_messages_and_a_full_transaction_are_applied_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(role, "GATHERING", 1e6)
    keeper = Role(Node("keeper"), database)
    await keep(keeper, 1)
    await keep(keeper, count)


async def test_a_busy_keeper_lets_messages_gather(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Role(Node("keeper"), database)
    await keep(keeper, 1)
    monkeypatch.setattr(role, "_WAITING", 1e6)  # no tick comes
    monkeypatch.setattr(role, "_LATE", 1e6)
    monkeypatch.setattr(role, "GATHERING", 1e6)
    task = asyncio.create_task(keep(keeper, BUSY))
    await asyncio.wait((task,), timeout=0.05)
    assert not task.done()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled(), "its messages go back to the broker"
    monkeypatch.setattr(role, "GATHERING", 0.0)
    await keep(keeper, BUSY)


async def test_a_busy_keeper_does_not_let_messages_gather_while_more_wait_on_the_broker(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Role(Node("keeper"), database)
    await keep(keeper, 1)
    monkeypatch.setattr(role, "_WAITING", -1.0)
    monkeypatch.setattr(role, "_LATE", 1e6)
    monkeypatch.setattr(role, "GATHERING", 1e6)
    async with asyncio.timeout(60):
        await keep(keeper, BUSY)


async def test_documents_that_crowd_in_wait_in_the_backlog_and_commands_do_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Role(Node("keeper"), database)
    encode = msgspec.json.encode
    start = "http://a.test/"
    await keeper.keep([encode(Add([start], delay=0.0))], [message("Command")], Batch(1))
    links = [Link(f"http://a.test/{number}") for number in range(100)]
    document = encode(Document(start, 1.0, "p1", "c1", 1.0, links=links))
    add = encode(Add(["http://b.test/"], delay=0.0))
    report = encode(Report("none", start, "c1", 0.0, 0.0))
    kinds = ["Document", "Document", "Report", "Report", "Command"]
    messages = [message(kind, f"m{number}") for number, kind in enumerate(kinds)]
    messages[-1] = replace(messages[-1], reply_to="asker")
    bodies = [document, document, report, report, add]

    monkeypatch.setattr(role, "_CROWDED", 2 * most_of(document))
    await keeper.keep(bodies, messages, Batch(len(bodies)))
    found = database.read_now(lambda connection: reading.status(connection, 0.0))
    assert (found.backlog, sum(found.addresses.values())) == (2, 2)
    where, _, answer = keeper.answers.get_nowait()
    assert (where, isinstance(answer, Answer), answer.error) == ("asker", True, "")

    await keep(keeper, 1)
    found = database.read_now(lambda connection: reading.status(connection, 0.0))
    assert (found.backlog, sum(found.addresses.values())) == (0, 102)


async def test_a_keeper_that_is_behind_neither_waits_for_messages_nor_applies_documents(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Role(Node("keeper"), database)
    start = "http://a.test/"
    await keeper.keep([msgspec.json.encode(Add([start], delay=0.0))], [message("Command")], Batch(1))
    body = msgspec.json.encode(Document(start, 1.0, "p1", "c1", 1.0, text="short"))

    async def send_documents(first: int) -> int:
        """Send as many documents as are otherwise delayed; return how many then wait."""
        messages = [message("Document", f"m{number}") for number in range(first, first + BUSY)]
        await keeper.keep([body] * BUSY, messages, Batch(BUSY))
        return database.read_now(lambda connection: reading.status(connection, 0.0)).backlog

    async def tick() -> None:
        await keeper.keep([msgspec.json.encode(Tick("k1"))], [message("Command")], Batch(1))

    monkeypatch.setattr(role, "_LATE", 1e6)
    await tick()
    assert await send_documents(0) == 0
    monkeypatch.setattr(role, "GATHERING", 1e6)
    monkeypatch.setattr(role, "_LATE", -1.0)
    assert await send_documents(BUSY) == BUSY
    monkeypatch.setattr(role, "_LATE", 1e6)
    await tick()
    assert database.read_now(lambda connection: reading.status(connection, 0.0)).backlog == 0


async def test_a_keeper_that_is_behind_sends_no_batch_until_it_has_caught_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Role(Node("keeper"), database)
    tick = msgspec.json.encode(Tick("k1"))
    add = msgspec.json.encode(Add(["http://a.test/"], delay=0.0))
    await keeper.keep([tick], [message("Command")], Batch(1))
    monkeypatch.setattr(role, "_LATE", -1.0)
    assert await keeper.keep([add], [message("Command")], Batch(1)) == []
    monkeypatch.setattr(role, "_LATE", 1e6)
    [sent] = await keeper.keep([tick], [message("Command")], Batch(1))
    assert sent.key == names.BATCH_KEY


def test_each_time_that_a_keeper_falls_behind_fewer_batches_may_be_out() -> None:
    state = State(1)
    for is_late in (True, True, False, True, False):
        state.note_pace(is_late=is_late)
    assert state.window == pytest.approx(FIRST_WINDOW * 0.7**2)
    for is_late in [True, False] * 20:
        state.note_pace(is_late=is_late)
    assert state.window == SMALLEST_WINDOW


def test_the_most_that_an_encoded_document_costs_follows_its_links_and_its_text() -> None:
    def cost(links: int, text: str) -> int:
        found = [Link(f"http://a.test/{number}") for number in range(links)]
        return most_of(msgspec.json.encode(Document("http://a.test/", 1.0, "p1", text=text, links=found)))

    assert 5_000 <= cost(5_000, "") < 1.2 * 5_000
    other = b'{"url": "http://a.test/", "links": [' + b", ".join([b'["http://a.test/x"]'] * 5_000) + b"]}"
    assert most_of(other) >= 5_000, "another program's encoding"
    assert cost(150, '["quoted"] ' * 4_000) < cost(500, ""), "a text's brackets are no links"
    assert 100 * cost(150, "x" * 44_000) < role._CROWDED, "a batch of ordinary pages is applied at once"
    assert 12 * cost(5_000, "") > role._CROWDED > LIMIT
