"""The keeper alone: what a seen address takes on disk, and what a page costs while they become more."""

import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import Connection
from tests.support.pages import words

from benchmarks.crawl_parts import Row
from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.crawl.messages import Add, Batch, Document, Link, Outcome, Report

_SIZES: Final = (100_000, 1_000_000, 10_000_000)
_HOSTS: Final = 1000
_LINKS: Final = 150
_NEW: Final = 30
_PAGES: Final = 600
_AT_ONCE: Final = 20_000


class _NoIndex:
    """An index that keeps nothing: what it costs does not depend on the addresses."""

    def store(self, connection: Connection, documents: Iterable[Document]) -> None: ...

    def store_pages(self, connection: Connection, pages: Iterable[Page]) -> None: ...

    def remove(self, connection: Connection, gone: Mapping[str, float]) -> None: ...


def _url(number: int) -> str:
    return f"http://site{number % _HOSTS}.example/of-the-bench/page-{number}.html"


class _Bench:
    """A keeper, and what crawlers and processors would say to it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeper = Keeper("bench", _NoIndex())
        self._now = time.time()
        self._seen = _HOSTS
        self._chance = random.Random(1)
        self._batches: list[Batch] = []
        starts = [_url(number) for number in range(_HOSTS)]
        self._apply([Asked(Add(starts, delay=0.0, contact="bench"), "add")])
        self._rules()

    def _rules(self) -> None:
        """Answer for each robots.txt, so that only pages are asked for after it."""
        known = 0
        while known < _HOSTS:
            asked = [batch for batch in self._batches if batch.addresses[0].purpose == "robots"]
            self._batches = [batch for batch in self._batches if batch not in asked]
            known += len(asked)
            inputs: list[Input] = []
            for batch in asked or self._batches[:1]:
                if not asked:
                    self._batches.remove(batch)
                for address in batch.addresses:
                    if address.purpose == "robots":
                        inputs.append(Outcome(batch.id, address.url, "robots", self._now, "a3f", status=200, body=""))
                    else:
                        inputs += self._page(batch, address.url)
                inputs.append(Report(batch.id, batch.origin, "a3f", self._now, 0.0))
            self._apply(inputs)

    def settle(self) -> None:
        """Send every host's first batch; from then on one is sent for each that comes back."""
        before = -1
        while len(self._batches) != before:
            before = len(self._batches)
            self._apply([])

    def _apply(self, inputs: list[Input]) -> None:
        self._now += 1.0

        def work(connection: Connection) -> Decided:
            return self._keeper.apply(connection, inputs, self._now)

        self._batches += self._database.write_now(work).batches

    def fill(self, wanted: int) -> None:
        """Add links until the given number of addresses is known."""
        while self._seen < wanted:
            numbers = range(self._seen, min(self._seen + _AT_ONCE, wanted))

            def add(connection: Connection, numbers: range = numbers) -> None:
                state, _ = self._keeper._current(connection, self._now)
                work = Work(connection, state, self._now, "keeper bench")
                [crawl] = state.crawls.values()
                for number in numbers:
                    work.add(parse(_url(number)), crawl, 1)
                work.flush()

            self._database.write_now(add)
            self._seen = numbers.stop

    def pages(self, count: int) -> list[float]:
        """Crawl and process pages; return the milliseconds of CPU for a page, of each transaction."""
        costs: list[float] = []
        done = 0
        while done < count:
            inputs, pages = self._answers()
            began = time.process_time()
            self._apply(inputs)
            if pages:
                costs.append((time.process_time() - began) * 1000 / pages)
            done += pages
        return costs

    def _answers(self) -> tuple[list[Input], int]:
        """Return what is said of the oldest batches that are out, and how many pages that has."""
        inputs: list[Input] = []
        pages = 0
        while self._batches and pages < 50:
            batch = self._batches.pop(0)
            for address in batch.addresses:
                pages += 1
                inputs += self._page(batch, address.url)
            inputs.append(Report(batch.id, batch.origin, "a3f", self._now, 0.0))
        return inputs, pages

    def _page(self, batch: Batch, url: str) -> tuple[Input, Input]:
        new = range(self._seen, self._seen + _NEW)
        self._seen += _NEW
        links = [_url(number) for number in new]
        links += [_url(self._chance.randrange(self._seen)) for _ in range(_LINKS - _NEW)]
        fingerprint = self._chance.getrandbits(64) - (1 << 63)
        text = words(fingerprint, 20)
        document = Document(
            url, self._now, "b4a", "a3f", fetched_at=self._now, final_url=url, title=text, text=text,
            fingerprint=fingerprint, links=[Link(link) for link in links],
        )  # fmt: skip
        return Page(url=url, fetched_at=self._now, body=b"", batch=batch.id, crawler="a3f"), document

    def bytes_a_seen_address(self) -> float:
        """Return what the seen set takes on disk, for each address in it."""

        def look(connection: Connection) -> float:
            size = connection.exec_driver_sql("SELECT sum(pgsize) FROM dbstat WHERE name = 'crawl_seen'").scalar_one()
            number = connection.exec_driver_sql("SELECT count(*) FROM crawl_seen").scalar_one()
            return float(size / number)

        return self._database.read_now(look)


def seen(share: float) -> list[Row]:
    """Measure the seen set and a page's cost at 10^5, 10^6 and 10^7 addresses."""
    costs: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{Path(folder)}/crawl.db") as database:
        bench = _Bench(database)
        for size in (int(size * share) for size in _SIZES):
            bench.fill(size)
            bench.settle()
            bench.pages(100)  # what a measurement would otherwise read from disk for the first time
            costs[size] = statistics.median(bench.pages(_PAGES))
        disk = bench.bytes_a_seen_address()
    first, last = min(costs), max(costs)
    rows = [Row(f"disk for a seen address, at {last:,}, bytes", f"{disk:.1f}", "<= 20")]
    rows += [
        Row(f"keeper, CPU a page of 150 links at {size:,} addresses, ms", f"{cost:.2f}") for size, cost in costs.items()
    ]
    return [*rows, Row("… times from first to last", f"{costs[last] / costs[first]:.2f}", "<= 1.1")]
