"""The keeper on a broker: commands, batches, pages and documents; killed keepers, and those that take over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import zstandard

import rabbitry
from rabbitry import Properties
from rabbitry.amqp.client import Channel
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import AskStatus, AskWhy, Status, Why
from rabbitry.apps.crawl.asking import Asking, Waiting
from rabbitry.apps.crawl.keeper.service import Options, run
from rabbitry.apps.crawl.messages import Add, Batch, Document, Link, Outcome, Pause, Report, Resume
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import RequestTimeout, UsageError
from tests.support.commands import service
from tests.support.waiting import eventually, eventually_awaited

PAGES = 40
START = "http://site.test/p/0"


@contextlib.asynccontextmanager
async def keeping(broker: str, folder: Path, database: str | None = None) -> AsyncIterator[None]:
    """Run a keeper within the block. database: its URL; None for one on SQLite in the folder."""
    stop, started = asyncio.Event(), asyncio.Event()
    options = Options(database or f"sqlite:///{folder / 'crawl.sqlite3'}")
    task = asyncio.create_task(run(options, broker, stop, started=lambda name: started.set()))
    try:
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        yield
    finally:
        stop.set()
        assert await task


class Fetching:
    """A crawler and processor in one: takes batches, and publishes the pages and documents of a site of PAGES pages."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.fetched: list[str] = []
        self.batches: list[Batch] = []

    async def run(self) -> None:
        """Work until cancelled."""
        await self._channel.declare_exchange(names.EXCHANGE, "topic", durable=True)
        await self._channel.declare_queue(names.BATCH_QUEUE, durable=True)
        await self._channel.bind_queue(names.BATCH_QUEUE, names.EXCHANGE, names.BATCH_KEY)
        async with self._channel.consume(names.BATCH_QUEUE) as deliveries:
            async for delivery in deliveries:
                await self.fetch(msgspec.json.decode(delivery.body, type=Batch))
                delivery.ack()

    async def fetch(self, batch: Batch) -> None:
        """Fetch a batch."""
        self.batches.append(batch)
        for address in batch.addresses:
            now = datetime.now(UTC)
            self.fetched.append(address.url)
            if address.purpose == "robots":
                await self.tell(Outcome(batch.id, address.url, "client-error", now.timestamp(), "c1", status=404))
                continue
            headers: dict[str, object] = {
                "x-rabbitry-url": address.url, "x-rabbitry-batch": batch.id, "x-rabbitry-fetched-at": now.isoformat(),
                "x-rabbitry-crawler": "c1", "x-rabbitry-status": 200, "x-rabbitry-size": 5, "x-rabbitry-wire": 9,
                "x-rabbitry-origin-headers": {"etag": '"1"'},
            }  # fmt: skip
            await self._channel.publish(
                zstandard.compress(b"<html"), exchange=names.EXCHANGE, routing_key=names.PAGE_KEY,
                properties=Properties(type="Page", content_encoding="zstd", headers=headers),  # type: ignore[arg-type] # checked by what it is passed to
            )  # fmt: skip
            number = int(address.url.rpartition("/")[2])
            links = [Link(f"http://site.test/p/{(number * 2 + step) % PAGES}") for step in (1, 2)]
            await self.tell(
                Document(
                    address.url, now.timestamp() + 0.1, "p1", "c1", now.timestamp(), title=f"page {number}",
                    text=f"text {number}", links=links,
                )
            )  # fmt: skip
        await self.tell(Report(batch.id, batch.origin, "c1", datetime.now(UTC).timestamp(), 0.0))

    async def tell(self, value: Outcome | Report | Document) -> None:
        """Apply messages of a role."""
        await self._channel.publish(
            msgspec.json.encode(value), exchange=names.EXCHANGE, routing_key=names.KEEPER_KEY,
            properties=Properties(type=type(value).__name__, content_type="application/json"),
        )  # fmt: skip


@contextlib.asynccontextmanager
async def fetching(broker: str) -> AsyncIterator[Fetching]:
    """Fetch within the block."""
    async with rabbitry.connect(broker) as connection:
        crawler = Fetching(await connection.channel(prefetch=1))
        task = asyncio.create_task(crawler.run())
        try:
            yield crawler
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def documents(asking: Asking) -> int:
    """Return the number of documents of the keeper; 0 if the keeper that was asked is gone."""
    try:
        return (await asking.find(AskStatus(), Status)).documents
    except RequestTimeout:
        return 0


async def test_a_site_is_crawled_over_the_broker(broker_url: str, tmp_path: Path) -> None:
    async with keeping(broker_url, tmp_path), fetching(broker_url) as crawler, Asking(broker_url) as asking:
        answer = await asking.tell(Add([START], delay=0.0))
        assert not answer.error

        async def done() -> bool:
            return await documents(asking) == PAGES

        await eventually_awaited(done, "all pages are in the index", within=80)
        why = await asking.find(AskWhy(f"{START[:-1]}7"), Why)
        assert [decision.outcome for decision in why.decisions] == ["queued", "sent", "page", "document"]
        status = await asking.find(AskStatus(), Status)
        assert (status.addresses["done"], status.pages, status.size, status.wire) == (PAGES, PAGES, 200, 360)
        assert len(crawler.fetched) == PAGES + 1


async def test_commands_are_answered_once_they_are_kept(broker_url: str, tmp_path: Path) -> None:
    async with keeping(broker_url, tmp_path), fetching(broker_url) as crawler, Asking(broker_url) as asking:
        assert (await asking.tell(Pause())).said == ["paused"]
        await asking.tell(Add([START], delay=0.0))
        assert (await asking.find(AskStatus(), Status)).is_paused
        assert not crawler.batches
        assert "--contact" in (await asking.tell(Add(["https://example.com/"]))).error
        assert (await asking.tell(Resume())).said == ["resumed"]
        await eventually(lambda: crawler.batches, "a batch is sent")


async def test_a_malformed_message_is_a_dead_letter_and_the_others_continue(broker_url: str, tmp_path: Path) -> None:
    async with rabbitry.connect(broker_url) as connection, Asking(broker_url) as asking:
        channel = await connection.channel()
        async with keeping(broker_url, tmp_path):
            for type_, body in (("Outcome", b"{"), ("Report", b"[]"), ("Command", b'{"command": "dance"}')):
                await channel.publish(
                    body, exchange=names.EXCHANGE, routing_key=names.KEEPER_KEY, properties=Properties(type=type_)
                )
            # A page without a type goes to the processors alone.
            await channel.publish(b"crawler|a3f|2026-11-21T10:00:00|<p>", exchange=names.EXCHANGE, routing_key="rproc")
            assert not (await asking.tell(Add([START]))).error

            async def dead() -> bool:
                queue = await channel.declare_queue(f"{names.APP}.dead", passive=True)
                return queue.message_count == 3

            await eventually_awaited(dead, "three dead letters", within=60)


# A batch that the killed keeper had committed and not published yet is taken back 115 s later.
@pytest.mark.timeout(280)
async def test_a_standby_keeper_takes_over_from_a_killed_one(broker_url: str, tmp_path: Path) -> None:
    arguments = ("crawl", "keeper", "--broker", broker_url, "--database", f"sqlite:///{tmp_path / 'crawl.sqlite3'}")
    with service(*arguments) as first:
        await asyncio.to_thread(first.wait_for, "keeper [0-9a-f]+")  # it is the active one
        with service(*arguments) as second:
            await asyncio.to_thread(second.wait_for, "keeper [0-9a-f]+")
            async with fetching(broker_url) as crawler, Asking(broker_url, patience=100) as asking:
                await asking.tell(Add([START], delay=0.0))
                await eventually(lambda: len(crawler.fetched) > 5, "some pages are fetched", within=60)
                first.process.send_signal(signal.SIGKILL)
                # The other one takes over at once: it answers long before that batch is taken back.
                assert not (await asking.tell(Resume())).error

                async def done() -> bool:
                    return await documents(asking) == PAGES

                await eventually_awaited(done, "all pages are in the index", within=200)
                pages = [url for url in crawler.fetched if not url.endswith("robots.txt")]
                assert len(pages) == len(set(pages)) == PAGES


async def test_a_keeper_whose_database_is_gone_ends_and_returns_its_messages(broker_url: str, tmp_path: Path) -> None:
    file = tmp_path / "crawl.sqlite3"
    started, stop = asyncio.Event(), asyncio.Event()
    options = Options(f"sqlite:///{file}")
    keeper = asyncio.create_task(run(options, broker_url, stop, started=lambda name: started.set()))
    await started.wait()
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(RecordsError, match=f"{file} .*removed or replaced"):
        await keeper
    async with Asking(broker_url, patience=0.1) as asking:
        with pytest.raises(Waiting):
            await asking.tell(Add([START], delay=0.0))
    (tmp_path / "elsewhere").rename(file)
    async with keeping(broker_url, tmp_path), fetching(broker_url) as crawler:
        await eventually(lambda: crawler.batches, "a batch is sent")


async def test_keepers_with_two_databases_do_not_share_a_crawl(broker_url: str, tmp_path: Path) -> None:
    other = Options(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    async with fetching(broker_url) as crawler:
        async with keeping(broker_url, tmp_path), Asking(broker_url) as asking:
            await asking.tell(Add([START], delay=0.0))
            await eventually(lambda: crawler.batches, "a batch is sent")

            async def answers() -> bool:
                return bool(await documents(asking))

            await eventually_awaited(answers, "a keeper answers")
            with pytest.raises(UsageError, match="another database"):
                await run(other, broker_url, asyncio.Event())
        # No keeper answers, and messages of that crawl arrive.
        batch = crawler.batches[0]
        await crawler.tell(Report(batch.id, batch.origin, "c1", 0.0, 0.0))
        with pytest.raises(RecordsError, match=f"holds messages of crawl {batch.id[:8]}"):
            await run(other, broker_url, asyncio.Event())
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        kept = await channel.declare_queue(names.KEEPER_QUEUE, passive=True)
        assert kept.message_count > 0, "they are the other keeper's"


async def test_a_command_that_comes_before_the_first_keeper_waits_for_it(broker_url: str, tmp_path: Path) -> None:
    async with Asking(broker_url) as asking:
        with pytest.raises(Waiting):
            await asking.tell(Add([START], delay=0.0))
        async with keeping(broker_url, tmp_path), fetching(broker_url) as crawler:
            await eventually(lambda: crawler.batches, "a batch is sent")
