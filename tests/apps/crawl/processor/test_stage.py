"""The processor on a broker: messages that it takes and publishes, and unreadable pages."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pika
import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Delivery, Properties
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.crawl.processor import stage
from rabbitry.flow import App
from rabbitry.flow.exceptions import Reject
from tests.apps.crawl.processor._messages import URL, message, packed, page_message
from tests.apps.crawl.processor._stages import fragile_app
from tests.support.brokers import ON_EMBEDDED
from tests.support.commands import service
from tests.support.waiting import eventually_blocking

PAGE = "<html lang=en><title>Otters</title><p>The otter eats fish.<a href=/a>a</a>"


class _Broker:
    """A client that publishes pages to the processor and reads its results."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def publish(self, body: bytes, properties: Properties | None = None) -> None:
        await self._channel.publish(
            body, exchange=names.EXCHANGE, routing_key=names.PAGE_KEY, properties=properties or Properties()
        )

    async def page(self, body: str, url: str = URL) -> None:
        headers = page_message("text/html", url=url).headers
        await self.publish(packed(body), Properties(content_encoding="zstd", type="Page", headers=headers))

    async def next(self, queue: str) -> Delivery:
        """Return the next message of a queue. Several starts of a worker process may come before it."""
        await self._channel.declare_queue(queue, passive=True)
        async with self._channel.consume(queue) as deliveries, asyncio.timeout(80):
            async for delivery in deliveries:
                delivery.ack()
                return delivery
        raise AssertionError(f"nothing more comes from {queue}")

    async def document(self) -> Document:
        delivery = await self.next("documents")
        assert delivery.properties.type == "Document"
        return msgspec.json.decode(delivery.body, type=Document)


@asynccontextmanager
async def _running(url: str, app: App) -> AsyncIterator[_Broker]:
    async with rabbitry.connect(url) as connection, app.worker(url):
        yield _Broker(await connection.channel())


def _app() -> App:
    app = stage.processor_app()
    app.outputs.pop(names.KEEPER_KEY)
    app.output(names.KEEPER_KEY, queue="documents")
    return app


async def test_a_page_becomes_a_document_and_a_line_of_the_log(broker_url: str) -> None:
    async with _running(broker_url, _app()) as broker:
        await broker.page(PAGE)
        document = await broker.document()
        assert (document.url, document.title, document.problem) == (URL, "Otters", "")
        line = await broker.next(names.LOG_QUEUE)
        kind, identity, at, address, text = line.body.decode().split("|")
        assert (kind, identity, address) == ("processor", document.processor, URL)
        assert "1 link" in text
        assert at.endswith("+00:00")
        assert (line.properties.headers or {})[names.LOG_OUTCOME] == "document"
        assert line.properties.expiration == "60000"


async def test_pages_of_other_programs_are_processed(broker_url: str) -> None:
    async with _running(broker_url, _app()) as broker:
        for body in (b"crawler|a3f|2026-11-21T10:00:00|" + PAGE.encode(), PAGE.encode(), b"", b"\0\1\xff" * 99):
            await broker.publish(body)
        plain, bare, empty, junk = [await broker.document() for _ in range(4)]
        assert (plain.title, plain.crawler) == ("Otters", "a3f")
        assert plain.missing == ["url", "status", "content-type", "headers"]
        assert (bare.title, bare.missing) == ("Otters", ["url", "status", "time", "crawler", "content-type", "headers"])
        assert (empty.problem, junk.problem) == ("", "unreadable")


@pytest.mark.timeout(300)  # several processes start, one after the other
@pytest.mark.parametrize("fault", ["dies", "hangs", "memory"])
@ON_EMBEDDED
async def test_a_page_that_kills_its_process_affects_no_other(broker_url: str, fault: str) -> None:
    async with _running(broker_url, fragile_app()) as broker:
        bad = f"http://a.example/{fault}"
        good = {f"http://a.example/good{number}" for number in range(5)}
        for url in [*good, bad]:
            await broker.page(PAGE, url=url)
        found: dict[str, set[str]] = {}
        while bad not in found or not good <= found.keys():
            document = await broker.document()
            found.setdefault(document.url, set()).add(document.problem)
        assert found == {bad: {"extractor-died"}} | {url: {""} for url in good}
        letter = await broker.next("crawl.dead")
        headers = letter.properties.headers or {}
        assert (headers["x-rabbitry-url"], headers["x-rabbitry-reason"]) == (bad, "failed")
        assert headers["x-rabbitry-attempt"] == stage.READINGS + 1
        assert "died" in str(headers["x-rabbitry-error"])


async def test_a_parsers_fault_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a parser's fault")

    monkeypatch.setattr(stage, "documents", fail)
    values = []
    with pytest.raises(Reject, match="a parser's fault") as caught:  # noqa: PT012 - yields values before it raises
        for value in stage.processed(packed(PAGE), page_message(), Node("processor", "abc")):
            values.append(value)
    assert isinstance(caught.value.__cause__, ValueError)
    document, line = (value.value for value in values)
    assert isinstance(document, Document)
    assert (document.url, document.problem) == (URL, "unreadable")
    assert "a parser's fault" in document.detail
    assert "unreadable" in str(line)


def test_the_last_attempt_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "documents", None)
    values = []
    with pytest.raises(Reject):  # noqa: PT012 - yields values before it raises
        for value in stage.processed(b"\0", message(attempt=stage.READINGS + 1), Node("processor", "abc")):
            values.append(value)
    assert [getattr(value.value, "problem", "line") for value in values] == ["extractor-died", "line"]


def _take_memory(pipe: Any) -> None:
    stage._limit_memory()
    try:
        pipe.send(len(bytearray(2 * stage.MEMORY_LIMIT)))
    except MemoryError:
        pipe.send("no memory")


def test_the_memory_of_a_process_is_limited() -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_take_memory, args=(theirs,))
    process.start()
    try:
        assert ours.poll(100)
        assert ours.recv() == "no memory"
    finally:
        process.kill()
        process.join()
        ours.close()
        theirs.close()


def _pika(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def _get(channel: Any, queue: str) -> tuple[Any, bytes]:
    def get() -> tuple[Any, bytes] | None:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        return None if method is None else (properties, body)

    found = eventually_blocking(get, f"a message in {queue}")
    assert found is not None
    return found


def test_a_pika_crawler_and_a_pika_log_reader_are_served(broker_url: str) -> None:
    connection = _pika(broker_url)
    channel = connection.channel()
    with service("crawl", "processor", "--broker", broker_url) as processor:
        said = processor.wait_for(r"processor ([0-9a-f]{3,6})")
        channel.exchange_declare("exchtopic", "topic", durable=True)
        channel.queue_declare("documents")
        channel.queue_bind("documents", "exchtopic", "crawl.keeper")
        channel.basic_publish("exchtopic", "rproc", b"crawler|a3f|2026-11-21T10:00:00|" + PAGE.encode())
        properties, body = _get(channel, "documents")
        assert properties.type == "Document"
        assert msgspec.json.decode(body)["title"] == "Otters"
        _, line = _get(channel, "logq")
        assert line.decode().startswith(f"processor|{said[1]}|")
        processor.process.send_signal(signal.SIGTERM)
        assert processor.process.wait(60) == 0
    connection.close()


def _declare_as_originals(channel: Any) -> None:
    """Declare as the original programs do, with amqplib's defaults."""
    channel.exchange_declare("exchtopic", "topic", auto_delete=True)
    for queue in ("proc", "logq"):
        channel.queue_declare(queue, auto_delete=True)
    channel.queue_bind("logq", "exchtopic", "rlog")


@pytest.mark.parametrize("plain", [["--plain"], []], ids=["plain", "durable"])
def test_a_processor_joins_the_original_programs(broker_url: str, plain: list[str]) -> None:
    connection = _pika(broker_url)
    channel = connection.channel()
    _declare_as_originals(channel)
    with service("crawl", "processor", "--broker", broker_url, *plain) as processor:
        processor.wait_for("processor [0-9a-f]+")
        assert ("exists with other flags" in processor.output) is not bool(plain)
        channel.basic_publish("exchtopic", "rproc", b"crawler|a3f|2026-11-21T10:00:00|<p>x")
        assert _get(channel, "logq")[1].startswith(b"processor|")
    connection.close()


def test_the_original_programs_join_a_plain_processor(broker_url: str) -> None:
    with service("crawl", "processor", "--broker", broker_url, "--plain") as processor:
        processor.wait_for("processor [0-9a-f]+")
        connection = _pika(broker_url)
        channel = connection.channel()
        _declare_as_originals(channel)
        channel.basic_publish("exchtopic", "rproc", b"crawler|a3f|2026-11-21T10:00:00|<p>x")
        assert _get(channel, "logq")[1].startswith(b"processor|")
        connection.close()


def test_a_processor_that_is_killed_loses_no_page(broker_url: str, tmp_path: Path) -> None:
    connection = _pika(broker_url)
    channel = connection.channel()
    with service("crawl", "processor", "--broker", broker_url) as first:
        first.wait_for("processor [0-9a-f]+")
        channel.queue_declare("documents")
        channel.queue_bind("documents", "exchtopic", "crawl.keeper")
        for number in range(60):
            text = f"crawler|a3f|2026-11-21T10:00:00|<title>{number}</title>{PAGE * 50}"
            channel.basic_publish("exchtopic", "rproc", text.encode())
        titles = {msgspec.json.decode(_get(channel, "documents")[1])["title"]}
        os.kill(first.process.pid, signal.SIGKILL)
    with service("crawl", "processor", "--broker", broker_url, "--processes", "2"):
        while len(titles) < 60:
            titles.add(msgspec.json.decode(_get(channel, "documents")[1])["title"])
    connection.close()


async def test_a_page_of_our_crawlers_can_be_read_by_a_pika_processor(broker_url: str) -> None:
    """Check the headers of contract 5 that Rabbitry's crawler publishes."""
    async with rabbitry.connect(broker_url) as client:
        channel = await client.channel()
        await channel.declare_queue("pages")
        headers = page_message("text/html").headers
        await channel.publish(
            packed(PAGE),
            routing_key="pages",
            properties=Properties(content_encoding="zstd", type="Page", headers=headers),
        )

    def read() -> None:
        import zstandard

        connection = _pika(broker_url)
        properties, body = _get(connection.channel(), "pages")
        connection.close()
        assert properties.headers["x-rabbitry-url"] == URL
        assert properties.headers["x-rabbitry-status"] == 200
        assert properties.headers["x-rabbitry-origin-headers"] == {"content-type": "text/html"}
        assert zstandard.ZstdDecompressor().decompress(body).decode() == PAGE

    await asyncio.to_thread(read)
