"""A busy keeper lets messages gather between transactions; a full one, and a small one, wait for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rabbitry.apps.crawl.keeper import role
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.role import AT_ONCE, BUSY, Role
from rabbitry.apps.crawl.messages import Report
from rabbitry.apps.crawl.node import Node
from rabbitry.flow import Batch, Message


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database on SQLite."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield opened


async def keep(keeper: Role, count: int) -> None:
    """Have a keeper apply so many reports of batches that it never sent."""
    body = msgspec.json.encode(Report("none", "http://a.test", "c1", 0.0, 0.0))
    message = Message(
        "m", "c", 1, "keeper", "crawl.keeper", "", "crawl.keeper", None, "Report", "application/json", None, {}
    )
    await keeper.keep([body] * count, [message] * count, Batch(count))


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
    monkeypatch.setattr(role, "GATHERING", 1e6)
    task = asyncio.create_task(keep(keeper, BUSY))
    await asyncio.wait((task,), timeout=0.05)
    assert not task.done()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled(), "its messages go back to the broker"
    monkeypatch.setattr(role, "GATHERING", 0.0)
    await keep(keeper, BUSY)
