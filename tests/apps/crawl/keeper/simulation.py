"""Simulated web sites, crawlers and processors on a simulated clock, for tests of the keeper alone."""

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper.addresses import origin_of
from rabbitry.apps.crawl.keeper.costs import LIMIT
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.keeper.reading import why
from rabbitry.apps.crawl.messages import Add, Address, Answer, Batch, Document, Link, Outcome, Report


@dataclass(frozen=True)
class Answered:
    """A site's answer: a page's text and links, or another outcome."""

    text: str = ""
    links: Sequence[str] = ()
    outcome: str = "page"
    location: str | None = None
    retry_after: float | None = None
    body: str | None = None
    canonical: str | None = None
    noindex: bool = False
    nofollow: bool = False
    etag: str | None = None
    modifications: Sequence[tuple[str, float]] = ()
    problem: str = ""


Site = Callable[[str], Answered]
MISSING = Answered(outcome="client-error")


def fingerprint(text: str) -> int:
    """Return the simhash of a text's words, as processors compute it."""
    totals = [0] * 64
    for word in text.split():
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        for bit in range(64):
            totals[bit] += 1 if value >> bit & 1 else -1
    found = sum(1 << bit for bit in range(64) if totals[bit] > 0)
    return found - (1 << 64) if found >> 63 else found


def words(seed: object, number: int = 60) -> str:
    """Return a text that is different for each seed."""
    chosen = random.Random(str(seed))
    return " ".join("".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(number))


class FakeIndex:
    """An index that records what the keeper stores."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.stored: dict[str, Document] = {}
        self.pages: Counter[str] = Counter()

    def store(self, connection: Connection, documents: Iterable[Document]) -> None:
        for document in documents:
            self.documents[document.url] += 1
            self.stored[document.url] = document

    def store_pages(self, connection: Connection, pages: Iterable[Page]) -> None:
        self.pages.update(page.url for page in pages)

    def remove(self, connection: Connection, gone: Mapping[str, float]) -> None:
        for url in gone:
            self.stored.pop(url, None)


@dataclass
class World:
    """Sites, crawlers, a processor and one keeper on a simulated clock.

    limit: messages that a transaction takes. dies: called for each batch; if it is true, its crawler dies halfway. lag:
    seconds from a page to its document. log: each request with its time.
    """

    database: Database
    site: Site
    now: float = 1_000_000.0
    took: float = 0.02
    crawlers: int = 4
    limit: int = LIMIT
    dies: Callable[[], bool] = lambda: False
    lag: Callable[[str], float] = lambda url: 0.2
    index: FakeIndex = field(default_factory=FakeIndex)
    log: list[tuple[float, str]] = field(default_factory=list)
    out: dict[str, list[Batch]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    most_out: int = 0
    looked_at: float | None = None

    def __post_init__(self) -> None:
        self.keeper = Keeper("one", self.index)
        self._events: list[tuple[float, int, list[Input]]] = []
        self._number = itertools.count()
        self._free = [self.now] * self.crawlers
        self._names = itertools.count()

    # -- called by tests ---------------------------------------------------------------------------------

    def add(self, *urls: str, **options: object) -> Answer:
        """Add addresses."""
        message = f"add {next(self._names)}"
        options.setdefault("delay", 0.0)
        return self.tell([Asked(Add(list(urls), **options), message)]).answers[message]  # type: ignore[arg-type] # checked by what it is passed to

    def tell(self, inputs: Sequence[Input]) -> Decided:
        """Apply messages, and pass the resulting batches to crawlers."""
        decided = self.apply(inputs)
        for batch in decided.batches:
            self.send(batch)
        return decided

    def apply(self, inputs: Sequence[Input]) -> Decided:
        """Apply messages, in as many transactions as they need."""
        found = Decided()
        while inputs or not found.taken:
            work = partial(self.keeper.apply, inputs=inputs, now=self.now, limit=self.limit)
            decided = self.database.write_now(work)
            inputs = inputs[decided.taken :]
            found.taken += decided.taken or 1
            found.batches += decided.batches
            found.answers |= decided.answers
        return found

    def run(self, seconds: float = 3 * 24 * 3600.0, *, most: int = 1_000_000) -> None:
        """Advance the clock until nothing is left to do, or by a number of seconds or requests."""
        end = self.now + seconds
        self.tell([])
        while len(self.log) < most:
            due = self.keeper.next_due()
            times = [event[0] for event in self._events[:1]] + ([] if due is None else [max(due, self.now)])
            if self.out and not self._events:
                times.append(min(batch.deadline for batches in self.out.values() for batch in batches) + 61)
            if not times or min(times) > end or min(times) == float("inf"):
                return
            # A keeper with a due host but nothing to send looks again at its next tick.
            step = (
                0.001 if self._events and self._events[0][0] <= min(times) else 0.2 if due == self.looked_at else 0.001
            )
            self.looked_at = due
            self.now = max(self.now + step, min(times))
            inputs: list[Input] = []
            while self._events and self._events[0][0] <= self.now and len(inputs) < 300:
                inputs += heapq.heappop(self._events)[2]
            self.tell(inputs)

    # -- crawlers and processors -------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Have a crawler fetch a batch. Fail if the keeper already has a batch outstanding for the host."""
        others = self.out.setdefault(batch.origin, [])
        others.append(batch)
        self.most_out = max(self.most_out, len(others))
        at = max(self.now, heapq.heappop(self._free))
        left = [address.url for address in batch.addresses]
        dies = self.dies()
        why = ""
        for number, address in enumerate(batch.addresses):
            if at > batch.deadline:
                why = "late"
                break
            if dies and number >= len(batch.addresses) // 2:
                why = "interrupted"
                break
            self.log.append((at, address.url))
            at += self.took
            del left[0]
            inputs = self.fetch(batch, address, at)
            self.later(at, inputs)
            if isinstance(inputs[0], Outcome) and inputs[0].outcome in ("slow-down", "no-connection", "no-such-host"):
                why = "blocked"
                break
            at += batch.delay
        heapq.heappush(self._free, at)
        report = Report(batch.id, batch.origin, "c", at, batch.delay if why else 0.0, left, why if left else "")
        self.later(at, [report])

    def later(self, at: float, inputs: list[Input]) -> None:
        """Deliver messages to the keeper at a time."""
        for one in inputs:
            if isinstance(one, Report):
                batches = self.out.get(one.origin, [])
                self.out[one.origin] = [batch for batch in batches if batch.id != one.batch]
                if not self.out[one.origin]:
                    del self.out[one.origin]
        heapq.heappush(self._events, (at, next(self._number), inputs))

    def fetch(self, batch: Batch, address: Address, at: float) -> list[Input]:
        """Return a crawler's outcome for one address."""
        answered = self.site(address.url)
        if address.purpose == "robots":
            outcome = {"page": "robots"}.get(answered.outcome, answered.outcome)
            return [
                Outcome(batch.id, address.url, outcome, at, "c", body=answered.body, retry_after=answered.retry_after)
            ]
        if answered.etag is not None and answered.etag == address.etag:
            return [Outcome(batch.id, address.url, "unchanged", at, "c", status=304)]
        if answered.outcome == "page":
            headers = {} if answered.etag is None else {"etag": answered.etag}
            page = Page(
                url=address.url, fetched_at=at, body=b"zstd", crawler="c", batch=batch.id, purpose=address.purpose,
                headers=headers, size=1000, wire=300,
            )  # fmt: skip
            self.later(at + self.lag(address.url), [self.process(address, answered, at)])
            return [page]
        return [
            Outcome(
                batch.id, address.url, answered.outcome, at, "c", location=answered.location,
                retry_after=answered.retry_after,
            )
        ]  # fmt: skip

    def process(self, address: Address, answered: Answered, at: float) -> Document:
        """Return the document that a processor makes of a page."""
        links = [Link(url) for url in answered.links] + [Link(url, at) for url, at in answered.modifications]
        return Document(
            address.url, at + 0.2, "p", "c", at, title=address.url, text=answered.text,
            fingerprint=fingerprint(answered.text) if len(answered.text) > 100 else 0,
            links=[] if answered.nofollow else links, canonical=answered.canonical, noindex=answered.noindex,
            nofollow=answered.nofollow, problem=answered.problem, is_sitemap=address.purpose == "sitemap",
            is_index=address.purpose == "sitemap" and any(".xml" in link.url for link in links),
        )  # fmt: skip

    # -- results -----------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return the keeper's counters."""

        def read(connection: Connection) -> dict[str, int]:
            rows = connection.exec_driver_sql("SELECT name, number FROM crawl_counts WHERE number <> 0").all()
            return {str(name): int(number) for name, number in rows}

        return self.database.read_now(read)

    def requests(self) -> Counter[str]:
        """Return the number of requests for each address."""
        return Counter(url for _, url in self.log)

    def gaps(self) -> dict[str, float]:
        """Return for each origin the shortest time from the end of an answer to the next request."""
        last: dict[str, float] = {}
        found: dict[str, float] = {}
        for at, url in sorted(self.log):
            origin = origin_of(url)
            if origin in last:
                found[origin] = min(found.get(origin, 1e9), at - last[origin] - self.took)
            last[origin] = at
        return found


def web(hosts: int, pages: int) -> Site:
    """Return hosts h0.test, h1.test, … of `pages` pages each, with links to all of them."""

    def site(url: str) -> Answered:
        origin = origin_of(url)
        path = url[len(origin) :]
        if path == "/robots.txt":
            return MISSING
        number = 0 if path == "/" else int(path.rpartition("/")[2])
        host = int(origin.removeprefix("http://h").removesuffix(".test"))
        links = [f"{origin}/p/{(number * 3 + step) % pages}" for step in range(1, 8)]
        return Answered(words(url), [*links, f"http://h{(host + 1) % hosts}.test/p/0"])

    return site


def site_of(pages: dict[str, Answered], rest: Answered = MISSING) -> Callable[[str], Answered]:
    """Return a site that has these addresses."""
    return lambda url: pages.get(url, rest)


def read_why(world: World, url: str) -> list[str]:
    """Return the decisions about an address, in words."""
    found = world.database.read_now(lambda connection: why(connection, url, world.now))
    return [decision.outcome for decision in found.decisions]


def delay(world: World, *, pages: float, reports: float) -> None:
    """Delay pages and reports by some seconds, like those that a killed keeper had unacknowledged."""
    later = world.later

    def late(at: float, inputs: list[Input]) -> None:
        later(at + pages * isinstance(inputs[0], Page) + reports * isinstance(inputs[0], Report), inputs)

    world.later = late  # type: ignore[method-assign] # the stand-in of this test
