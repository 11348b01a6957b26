"""The keeper alone: the disk space of a seen address, and the cost of a page as addresses increase.

A page has 150 links, of which 4 in 5 lead to its own host and the others anywhere, as on most sites. Links to known
addresses are spread evenly over all of them: the worst case for a cache. Either one link in ten is new, as in a very
large crawl of the web (IRLbot: 41 of 394 thousand million), or none is.
"""

import random
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection
from tests.support.pages import words

from benchmarks.crawl_parts import Row
from rabbitry.apps.crawl.keeper import index
from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.keeper.seen import MOST
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.crawl.messages import Add, Batch, Document, Link, Outcome, Report

_SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
_HOSTS: Final = 100
_LINKS: Final = 150
_MIXES: Final = {"1 in 10 new": _LINKS // 10, "all known": 0}
_NEAR: Final = 0.8
"""The share of links to the page's own host."""
_PAGES: Final = 5_000
"""Pages of a round in which each host gets one batch: the keeper chooses the batches of all hosts together."""
_AT_ONCE: Final = 100_000
_BATCHES: Final = 25
_OF_A_BATCH: Final = 10
"""Messages of one transaction: pages of that many hosts, that many of each, and a document for each page."""
_BODY: Final = random.Random(1).randbytes(12_000)
"""The size of a page of 58 kB after compression."""


def _url(host: int, number: int) -> str:
    return f"http://site{host}.example/of-the-bench/page-{number}.html"


class _Bench:
    """A keeper, with simulated crawlers and processors."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeper = Keeper("bench", index)
        self._now = time.time()
        self._known = [1] * _HOSTS
        """Addresses of each host."""
        self._chance = random.Random(1)
        self._batches: deque[tuple[Batch, list[str]]] = deque()
        """The batches that are out, with their unanswered addresses."""
        starts = [_url(host, 0) for host in range(_HOSTS)]
        self._apply([Asked(Add(starts, delay=0.0, contact="bench@example.org"), "add")])
        self._allow()

    def _allow(self) -> None:
        """Answer for each robots.txt, so that afterwards only pages are requested."""
        answered = 0
        while answered < _HOSTS:
            inputs: list[Input] = []
            for _ in range(len(self._batches)):
                batch, urls = self._batches.popleft()
                if batch.addresses[0].purpose != "robots":
                    self._batches.append((batch, urls))
                    continue
                inputs.append(Outcome(batch.id, urls[0], "robots", self._now, "a3f", status=200, body=""))
                inputs.append(Report(batch.id, batch.origin, "a3f", self._now, 0.0))
                answered += 1
            self._apply(inputs or self._answers(0))

    def _apply(self, inputs: list[Input]) -> None:
        self._now += 1.0

        def work(connection: Connection) -> Decided:
            return self._keeper.apply(connection, inputs, self._now, limit=1 << 30)

        for batch in self._database.write_now(work).batches:
            self._batches.append((batch, [address.url for address in batch.addresses]))

    def fill(self, wanted: int) -> None:
        """Add known addresses until there are `wanted`: the rows that the keeper would write, in bulk."""
        while (missing := wanted - sum(self._known)) > 0:
            urls: list[str] = []
            for number in range(min(missing, _AT_ONCE)):
                host = number % _HOSTS
                urls.append(_url(host, self._known[host]))
                self._known[host] += 1
            self._database.write_now(partial(self._add, urls=urls))
        self._database.write_now(self._cover)

    def _cover(self, connection: Connection) -> None:
        """Have the keeper read all addresses into its filter, which takes it some minutes of a crawl."""
        seen = self._keeper._current(connection, self._now).seen
        while not seen.is_covered:
            seen.tend(connection)

    def _add(self, connection: Connection, urls: list[str]) -> None:
        state = self._keeper._current(connection, self._now)
        work = Work(connection, state, self._now, "keeper bench")
        [crawl] = state.crawls.values()
        first = state.next_address
        state.next_address += len(urls)
        addresses = [parse(url) for url in urls]
        hosts = [state.by_name[one.host] for one in addresses[:_HOSTS]]
        connection.exec_driver_sql(
            "INSERT INTO crawl_addresses (id, key, url, host, crawl, depth, source, found_at)"
            " VALUES (?, ?, ?, ?, ?, 1, 1, ?)",
            [
                (first + number, one.key, one.url, hosts[number % _HOSTS].id, crawl.id, self._now)
                for number, one in enumerate(addresses)
            ],
        )
        connection.exec_driver_sql(
            "INSERT INTO crawl_seen (key, ref) VALUES (?, ?)",
            sorted((one.key, first + number) for number, one in enumerate(addresses)),
        )
        for one in addresses:
            state.by_name[one.host].waiting += 1
        work.hosts.update(host.id for host in hosts)
        work.counts["state:queued"] += len(urls)
        work.flush()
        state.known.add(urls, crawl.id, -1)
        state.seen.moved([one.key for one in addresses])

    def pages(self, count: int, new: int) -> float:
        """Crawl and process pages; return the milliseconds of CPU per page, all transactions included."""
        seconds, done = 0.0, 0
        while done < count:
            inputs = self._answers(new)
            began = time.process_time()
            self._apply(inputs)
            seconds += time.process_time() - began
            done += sum(isinstance(one, Page) for one in inputs)
        return seconds * 1000 / done

    def _answers(self, new: int) -> list[Input]:
        """Return the messages of crawlers and processors for the oldest batches."""
        inputs: list[Input] = []
        for _ in range(min(_BATCHES, len(self._batches))):
            batch, urls = self._batches.popleft()
            for url in urls[:_OF_A_BATCH]:
                inputs += self._page(batch, url, new)
            del urls[:_OF_A_BATCH]
            if urls:
                self._batches.append((batch, urls))
            else:
                inputs.append(Report(batch.id, batch.origin, "a3f", self._now, 0.0))
        return inputs

    def _page(self, batch: Batch, url: str, new: int) -> tuple[Input, Input]:
        home = int(batch.origin.removeprefix("http://site").removesuffix(".example"))
        chance, known = self._chance, self._known
        links: dict[str, None] = {}
        while len(links) < _LINKS:
            host = home if chance.random() < _NEAR else chance.randrange(_HOSTS)
            if len(links) < new:
                links[_url(host, known[host])] = None
                known[host] += 1
            else:
                links[_url(host, chance.randrange(known[host]))] = None
        fingerprint = chance.getrandbits(64) - (1 << 63)
        title = words(fingerprint, 8)
        document = Document(
            url, self._now, "b4a", "a3f", fetched_at=self._now, final_url=url, title=title,
            fingerprint=fingerprint, links=[Link(link) for link in links],
        )  # fmt: skip
        page = Page(
            url=url, fetched_at=self._now, body=_BODY, batch=batch.id, crawler="a3f", content_type="text/html",
            final_url=url, size=58_000, wire=12_000,
        )  # fmt: skip
        return page, document

    def bytes_a_seen_address(self) -> float:
        """Return the disk space of the seen set per address."""

        def look(connection: Connection) -> float:
            size = connection.exec_driver_sql(
                "SELECT sum(pgsize) FROM dbstat WHERE name IN ('crawl_seen', 'crawl_seen_log')"
            ).scalar_one()
            return float(size / sum(self._known))

        return self._database.read_now(look)


def seen(share: float) -> list[Row]:
    """Measure the seen set and a page's cost at 10^4, 10^5, 10^6 and 10^7 addresses."""
    sizes = [int(size * share) for size in _SIZES]
    costs: dict[str, list[float]] = {mix: [] for mix in _MIXES}
    disk: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{Path(folder)}/crawl.db") as database:
        bench = _Bench(database)
        for size in sizes:
            bench.fill(size)
            bench.pages(int(3_000 * share), 0)  # so that hosts and shapes are known, and the caches are warm
            for mix, new in _MIXES.items():
                # The mean of enough pages that new addresses are moved to their table once or twice.
                count = int((MOST // new * 2 if new else _PAGES) * share)
                costs[mix].append(bench.pages(count, new))
            disk.append(bench.bytes_a_seen_address())
    named = ", ".join(f"{size:,}" for size in sizes)
    rows = [Row(f"disk for a seen address, at {named}, bytes", ", ".join(f"{one:.1f}" for one in disk), "<= 20")]
    for mix, found in costs.items():
        measure = f"keeper, CPU a page of 150 links, {mix}, at {named} addresses, ms"
        rows.append(Row(measure, ", ".join(f"{cost:.2f}" for cost in found)))
        most = max(found[1:]) / found[1]
        rows.append(Row(f"… the most beside that at {sizes[1]:,}, times", f"{most:.2f}", "<= 1.1"))
    return rows
