"""A crawler, a processor and a log reader with pika that know only contract 5, beside Rabbitry's roles."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pika
import pytest
import zstandard

from tests.support.brokers import ON_EMBEDDED
from tests.support.crawling import Crawl
from tests.support.pages import Graph, page, words
from tests.support.sites import Sites
from tests.support.waiting import eventually_blocking

pytestmark = pytest.mark.timeout(240)

LINE: Final = re.compile(
    r"(crawler|processor|keeper)\|([0-9a-f]{3,6})\|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^|]*)\|([^|\n]*)\|([^|\n]+)"
)


class Original:
    """A program on the topic exchange `exchtopic`. A context manager.

    declares: whether it declares exchange and queues with amqplib's defaults; else it uses existing ones.
    """

    def __init__(self, url: str, *, declares: bool) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()
        self._declares = declares
        if declares:
            self.channel.exchange_declare("exchtopic", "topic", auto_delete=True)
            for queue, key in (("proc", "rproc"), ("logq", "rlog")):
                self.channel.queue_declare(queue, auto_delete=True)
                self.channel.queue_bind(queue, "exchtopic", key)

    def taken(self, queue: str) -> Iterator[tuple[pika.BasicProperties, bytes]]:
        """Take all messages of a queue, acknowledged before they are handled, as the originals do."""
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return
            yield properties, body

    def crawled(self, identity: str, html: str) -> None:
        """Publish a page as the original crawler does."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        self.channel.basic_publish("exchtopic", "rproc", f"crawler|{identity}|{moment}|{html}".encode())
        self.channel.basic_publish("exchtopic", "rlog", f"crawler|{identity}|{moment}|http://x/|log".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


@pytest.fixture(params=[True, False], ids=["declared-by-the-original", "declared-by-rabbitry"])
def declares(request: pytest.FixtureRequest) -> bool:
    """The program that comes first and declares."""
    return bool(request.param)


def test_a_reader_of_the_log_sees_each_page_of_each_role(broker_url: str, tmp_path: Path, declares: bool) -> None:
    with Sites(Graph(12, links=3)) as sites, Crawl(broker_url, tmp_path) as crawl:
        if declares:
            with Original(broker_url, declares=True) as reader:
                _crawl_and_read(crawl, sites, reader)
        else:
            crawl.start("processor")
            crawl.ready()
            with Original(broker_url, declares=False) as reader:
                _crawl_and_read(crawl, sites, reader)


def _crawl_and_read(crawl: Crawl, sites: Sites, reader: Original) -> None:
    crawl.start_all()
    crawl.add(sites.url("/p/0"))
    lines: list[str] = []

    def all_read() -> bool:
        lines.extend(body.decode() for _, body in reader.taken("logq"))
        return all(
            {url for line in lines if (found := LINE.fullmatch(line)) and found[1] == kind for url in [found[4]]}
            >= {sites.url(f"/p/{n}") for n in range(12)}
            for kind in ("crawler", "processor")
        )

    eventually_blocking(all_read, "a line of crawler and processor for each page", within=80)
    assert all(LINE.fullmatch(line) for line in lines), [line for line in lines if not LINE.fullmatch(line)]
    identities = {tuple(line.split("|")[:2]) for line in lines}
    assert len({one for one in identities if one[0] == "crawler"}) == 1


def test_pages_of_another_crawler_are_processed(broker_url: str, tmp_path: Path, declares: bool) -> None:
    with Crawl(broker_url, tmp_path) as crawl:
        if not declares:
            crawl.start("processor")
            crawl.ready()
        with Original(broker_url, declares=declares) as crawler:
            if declares:
                crawl.start("processor")
            eventually_blocking(
                lambda: crawler.channel.queue_declare("proc", passive=True).method.consumer_count,
                "the processor",
                within=80,
            )
            for number in range(5):
                crawler.crawled("a3f", page(f"page {number}", ["/x"], words(number)))
            lines: list[str] = []

            def processed() -> bool:
                lines.extend(body.decode() for _, body in crawler.taken("logq"))
                return sum(line.startswith("processor|") for line in lines) >= 5

            eventually_blocking(processed, "a line for each page", within=80)
            assert sum(line.startswith("crawler|a3f|") for line in lines) == 5
            crawl.check()
            assert crawler.channel.queue_declare("proc", passive=True).method.message_count == 0


def test_another_processor_takes_plain_pages(broker_url: str, tmp_path: Path, declares: bool) -> None:
    began = time.time()
    with Sites(Graph(1, links=1)) as sites, Crawl(broker_url, tmp_path) as crawl:
        keeper = crawl.start("keeper", *(["--plain"] if declares else []))
        keeper.wait_for(r"keeper \w+")  # it declares the queues, before a plain crawler can
        if declares:
            with Original(broker_url, declares=True) as processor:
                crawl.start("crawler", "--plain")
                crawl.add(sites.url("/p/0"), plain=True)
                text = _page_of(processor)
        else:
            crawl.start("crawler", "--plain")
            crawl.add(sites.url("/p/0"))
            eventually_blocking(lambda: sites.log.pages(), "the page is fetched", within=80)
            with Original(broker_url, declares=False) as processor:
                text = _page_of(processor)
    kind, identity, moment, html = text.split("|", 3)
    assert kind == "crawler"
    assert re.fullmatch("[0-9a-f]{3,6}", identity)
    assert int(began) <= datetime.fromisoformat(moment).timestamp() <= time.time()
    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>")


def _page_of(processor: Original) -> str:
    bodies: list[bytes] = []

    def came() -> bool:
        bodies.extend(body for _, body in processor.taken("proc"))
        return bool(bodies)

    eventually_blocking(came, "a page", within=80)
    return bodies[0].decode()


def test_a_page_of_ours_has_all_metadata_in_its_headers(broker_url: str, tmp_path: Path) -> None:
    began = time.time()
    with Sites(Graph(1, links=1, validators=True)) as sites, Crawl(broker_url, tmp_path) as crawl:
        crawl.start("keeper")
        crawl.start("crawler")
        crawl.add(sites.url("/p/0"))
        eventually_blocking(lambda: sites.log.pages(), "the page is fetched", within=80)
        messages: list[tuple[pika.BasicProperties, bytes]] = []
        with Original(broker_url, declares=False) as processor:

            def came() -> bool:
                messages.extend(processor.taken("proc"))
                return bool(messages)

            eventually_blocking(came, "a page", within=80)
    [(properties, body)] = messages
    assert (properties.type, properties.content_encoding) == ("Page", "zstd")
    assert properties.content_type == "text/html; charset=utf-8"
    headers = properties.headers or {}
    assert headers["x-rabbitry-url"] == headers["x-rabbitry-final-url"] == sites.url("/p/0")
    assert headers["x-rabbitry-status"] == 200
    assert int(began) <= datetime.fromisoformat(headers["x-rabbitry-fetched-at"]).timestamp() <= time.time()
    assert re.fullmatch("[0-9a-f]{3,6}", headers["x-rabbitry-crawler"])
    assert headers["x-rabbitry-origin-headers"]["etag"] == '"0"'
    html = zstandard.ZstdDecompressor().decompress(body)
    assert len(html) == sites.log.pages()[0].size


@ON_EMBEDDED
def test_a_processor_that_dies_loses_no_page_of_another_crawler(broker_url: str, tmp_path: Path) -> None:
    with Crawl(broker_url, tmp_path) as crawl:
        crawl.start("processor")
        crawl.ready()
        # An original's auto-delete queue would go with its last consumer.
        with Original(broker_url, declares=False) as crawler:
            lines: list[str] = []

            def processed() -> int:
                lines.extend(body.decode() for _, body in crawler.taken("logq"))
                return sum(line.startswith("processor|") for line in lines)

            for number in range(200):
                crawler.crawled("a3f", page(f"page {number}", ["/x"], words(number, 2000)))
            eventually_blocking(lambda: processed() >= 10, "some pages", within=80)
            [first] = crawl.running
            crawl.kill(first)
            crawl.start("processor")
            eventually_blocking(lambda: processed() >= 200, "all pages", within=80)
