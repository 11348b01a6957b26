"""The crawler on a broker, beside pika programs that know only the contract."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
import zstandard

from rabbitry.apps.crawl.crawler.service import Options, run
from tests.apps.crawl.crawler._fetching import LOOPBACK, PAGE, Server, answer, serving, writes
from tests.support import commands
from tests.support.waiting import eventually, eventually_blocking

LINE = re.compile(r"crawler\|[0-9a-f]{3,6}\|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\|[^|]*\|[^|]*")


class Observer:
    """A pika program that receives a copy of each message with the contract's keys, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.messages: list[tuple[str, pika.BasicProperties, bytes]] = []
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._wanted: list[tuple[str, bytes]] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.exchange_declare("exchtopic", "topic", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        for key in ("rproc", "rlog", "crawl.keeper"):
            channel.queue_bind(queue, "exchtopic", key)
        self._ready.set()
        while not self._stop.is_set():
            while self._wanted:
                key, body = self._wanted.pop()
                channel.basic_publish("exchtopic", key, body)
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                connection.process_data_events(0.02)
            else:
                self.messages.append((method.routing_key, properties, body))
        connection.close()

    def publish(self, key: str, body: bytes) -> None:
        """Publish a message without properties."""
        self._wanted.append((key, body))

    def said(self, type_: str) -> list[dict[str, Any]]:
        """Return the messages of this type to the keeper."""
        return [json.loads(body) for key, properties, body in self.messages if properties.type == type_]

    @property
    def lines(self) -> list[str]:
        """Return the log lines."""
        return [body.decode() for key, _, body in self.messages if key == "rlog"]

    @property
    def pages(self) -> list[tuple[pika.BasicProperties, bytes]]:
        """Return the pages."""
        return [(properties, body) for key, properties, body in self.messages if key == "rproc"]

    def __enter__(self) -> Observer:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def observer(broker_url: str) -> Iterator[Observer]:
    with Observer(broker_url) as made:
        yield made


@contextlib.asynccontextmanager
async def crawling(url: str, options: Options) -> AsyncIterator[Callable[[], None]]:
    """Run a crawler within the block; the yielded event stops it."""
    stop, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run(options, url, "9.9", stop, started=lambda _: started.set()))
    try:
        await started.wait()
        yield stop.set
    finally:
        stop.set()
        assert await task


def batch_of(server: Server, *paths: str, **more: Any) -> bytes:
    """Return a batch in the form that any program can write."""
    origin = f"http://127.0.0.1:{server.port}"
    addresses = [{"url": f"{origin}{path}"} for path in paths]
    batch = {"id": "b1", "origin": origin, "addresses": addresses, "delay": 0.0, "deadline": time.time() + 60}
    return json.dumps(batch | more).encode()


async def test_a_pika_program_gets_a_batch_fetched(broker_url: str, observer: Observer) -> None:
    replies = {
        "/a": answer(PAGE, "200 OK", 'ETag: "one"'),
        "/b": answer(b"", "301 Moved", "Location: /c"),
        "/map.xml": answer(b"<urlset/>", kind="application/xml"),
    }
    async with serving(replies) as server, crawling(broker_url, Options(LOOPBACK)):
        addresses = [{"url": f"http://127.0.0.1:{server.port}/map.xml", "purpose": "sitemap"}]
        observer.publish("crawl.batch", batch_of(server, "/a", "/b", "/gone"))
        observer.publish("crawl.batch", batch_of(server, id="b2", addresses=addresses))
        await eventually(lambda: len(observer.said("Report")) == 2 and len(observer.lines) == 4, "reports and lines")
    pages = {properties.headers["x-rabbitry-url"]: (properties, body) for properties, body in observer.pages}
    properties, body = pages[f"http://127.0.0.1:{server.port}/a"]
    assert zstandard.ZstdDecompressor().decompress(body) == PAGE
    assert (properties.type, properties.content_type, properties.content_encoding) == ("Page", "text/html", "zstd")
    assert properties.delivery_mode == 2
    headers = properties.headers
    assert headers["x-rabbitry-status"] == 200
    assert headers["x-rabbitry-batch"] == "b1"
    assert headers["x-rabbitry-size"] == len(PAGE) < headers["x-rabbitry-wire"]
    assert headers["x-rabbitry-origin-headers"] == {"content-type": "text/html", "etag": '"one"'}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", headers["x-rabbitry-fetched-at"])
    sitemap, _ = pages[f"http://127.0.0.1:{server.port}/map.xml"]
    assert sitemap.headers["x-rabbitry-purpose"] == "sitemap"
    outcomes = {each["url"].rpartition("/")[2]: each["outcome"] for each in observer.said("Outcome")}
    assert outcomes == {"b": "redirect", "gone": "client-error"}
    assert {report["batch"] for report in observer.said("Report")} == {"b1", "b2"}
    assert all(LINE.fullmatch(line) for line in observer.lines), observer.lines
    assert len({line.split("|")[1] for line in observer.lines} | {headers["x-rabbitry-crawler"]}) == 1


async def test_log_line_is_transient_and_expires(broker_url: str, observer: Observer) -> None:
    async with serving({"/a": answer(PAGE)}) as server, crawling(broker_url, Options(LOOPBACK)):
        observer.publish("crawl.batch", batch_of(server, "/a"))
        await eventually(lambda: observer.lines, "a line")
    [properties] = [properties for key, properties, _ in observer.messages if key == "rlog"]
    assert (properties.delivery_mode, properties.expiration, properties.app_id) == (1, "60000", "crawl")
    assert properties.headers["x-rabbitry-outcome"] == "page"
    assert properties.headers["x-rabbitry-wire"] > len(PAGE)


async def test_pika_program_reads_the_log(broker_url: str) -> None:
    """Read the messages that were published before the reader started."""

    def read() -> str | None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
            _, _, body = connection.channel().basic_get("logq", auto_ack=True)
            return body.decode() if body else None

    def publish(body: bytes) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
            connection.channel().basic_publish("exchtopic", "crawl.batch", body)

    async with serving({"/a": answer(PAGE)}) as server, crawling(broker_url, Options(LOOPBACK)):
        await asyncio.to_thread(publish, batch_of(server, "/a"))
        line = await asyncio.to_thread(eventually_blocking, read, "a line")
    assert line is not None
    assert LINE.fullmatch(line)
    assert line.endswith(f"http://127.0.0.1:{server.port}/a|200, {len(PAGE)} bytes in {line.split(' in ')[1]}")


async def test_stop_returns_the_rest_of_a_batch(broker_url: str, observer: Observer) -> None:
    async with serving({"/a": answer(PAGE)}) as server, crawling(broker_url, Options(LOOPBACK)) as stop:
        observer.publish("crawl.batch", batch_of(server, "/a", "/b", "/c", delay=20.0))
        await eventually(lambda: observer.pages, "a page")
        stop()
        [report] = await eventually(lambda: observer.said("Report"), "the report")
    assert [url.rpartition("/")[2] for url in report["left"]] == ["b", "c"]
    assert report["why"] == "interrupted"
    assert 0 < report["wait"] <= 20


async def test_a_plain_crawler_publishes_like_the_original(broker_url: str) -> None:
    """Act as the original processor and page: auto-delete exchange and queues, messages without a content type."""
    pages: list[bytes] = []

    def original(body: bytes) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
            channel = connection.channel()
            channel.exchange_declare("exchtopic", "topic", auto_delete=True)
            for queue, key in (("proc", "rproc"), ("logq", "rlog")):
                channel.queue_declare(queue, auto_delete=True)
                channel.queue_bind(queue, "exchtopic", key)
            channel.basic_publish("exchtopic", "crawl.batch", body)
            found = eventually_blocking(lambda: channel.basic_get("proc", auto_ack=True)[2], "a page")
            assert found is not None
            pages.append(found)

    async with serving({"/a": answer(PAGE)}) as server, crawling(broker_url, Options(LOOPBACK, plain=True)):
        await asyncio.to_thread(original, batch_of(server, "/a"))
    kind, identity, at, html = pages[0].split(b"|", 3)
    assert (kind, html) == (b"crawler", PAGE)
    assert re.fullmatch(rb"[0-9a-f]{3,6}", identity)
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT[0-9:.+]+", at)


async def test_a_malformed_batch_becomes_a_dead_letter(broker_url: str, observer: Observer) -> None:
    async with serving({"/a": answer(PAGE)}) as server, crawling(broker_url, Options(LOOPBACK)):
        observer.publish("crawl.batch", b"no JSON")
        observer.publish("crawl.batch", b'{"id": 7}')
        observer.publish("crawl.batch", batch_of(server, "/a"))
        await eventually(lambda: observer.said("Report"), "the report")

        def dead() -> int:
            with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
                found = connection.channel().queue_declare("crawl.dead", passive=True)
                return int(found.method.message_count)

        await asyncio.to_thread(eventually_blocking, lambda: dead() == 2, "two dead letters")


async def test_a_killed_crawlers_batch_is_returned_without_a_request(
    broker_url: str, observer: Observer, tmp_path: Path
) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    crawler = ("crawl", "crawler", "--allow-private", "127.0.0.1, 10.0.0.0/8")
    async with serving({"/a": answer(PAGE), "/b": writes(then_wait=True)}) as server:
        with commands.service(*crawler, more=more) as first:
            await asyncio.to_thread(first.wait_for, "crawler [0-9a-f]+")
            observer.publish("crawl.batch", batch_of(server, "/a", "/b", "/c"))
            await eventually(lambda: len(server.asked) == 2, "the second request")
            first.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.process.wait)
        async with crawling(broker_url, Options(LOOPBACK)):
            [report] = await eventually(lambda: observer.said("Report"), "the report")
    assert [url.rpartition("/")[2] for url in report["left"]] == ["a", "b", "c"]
    assert report["why"] == "interrupted"
    assert len(server.asked) == 2


async def test_command_ends_in_order(broker_url: str, observer: Observer) -> None:
    async with serving({"/a": answer(PAGE)}) as server:
        with commands.service("crawl", "crawler", more={"RABBITRY_BROKER": broker_url}) as crawler:
            await asyncio.to_thread(crawler.wait_for, "crawler [0-9a-f]+")
            observer.publish("crawl.batch", batch_of(server, "/a"))
            [outcome] = await eventually(lambda: observer.said("Outcome"), "the outcome")
            crawler.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(crawler.process.wait) == 0
            output = crawler.output
    assert outcome["outcome"] == "private"  # no network is allowed
    assert server.connections == 0
    assert "Traceback" not in output
    assert "ERROR" not in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--allow-private", "10.0.0.0/33"), "'10.0.0.0/33' is not a network"),
        (("--bandwidth", "fast"), "'fast' is not a number of bytes a second"),
        (("--cpu-limit", "nan"), "nan is not a number"),
        (("--bandwidth", "0"), "'0' is not a number of bytes a second"),
        (("--cpu-limit", "0"), "Invalid value for '--cpu-limit'"),
        (("--concurrency", "0"), "Invalid value for '--concurrency'"),
    ],
)
def test_wrong_option_is_a_wrong_usage(arguments: tuple[str, str], text: str) -> None:
    done = commands.run("crawl", "crawler", *arguments)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("text", "rate"),
    [("500", 500), ("1.5k", 1500), ("2M", 2e6), ("1Mi", 2**20), ("3 MB/s", 3e6), (" 1GiB ", 2**30), ("7B/s", 7)],
)
def test_bandwidth_has_suffixes(text: str, rate: float) -> None:
    from rabbitry.apps.crawl.commands.crawler import bytes_a_second

    assert bytes_a_second(text) == rate


def test_crawler_imports_nothing_heavy() -> None:
    code = (
        "import sys, rabbitry.apps.crawl.crawler.service, rabbitry.flow.worker\n"
        "heavy = {'sqlalchemy', 'resiliparse', 'selectolax', 'fastapi', 'starlette', 'pydantic', 'uvicorn', 'httpx',"
        " 'protego', 'warcio', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=commands.environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
