"""Queries about a crawl and their answers, as JSON: over the broker, from the database, to the page.

Times are Unix timestamps (UTC). The field `question` holds a query's type, the field `answer` an answer's.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

MOST_HOSTS: Final = 1_000
MOST_FOUND: Final = 100
"""The most entries of one answer."""
LONGEST_SEARCH: Final = 1_000
"""The characters of a search that are read."""


class _Question(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="question"):
    pass


class _Answered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="answer"):
    pass


# -- questions -------------------------------------------------------------------------------------------


class AskStatus(_Question, frozen=True, tag="status"):
    """The query for the progress of the crawl, answered by a `Status`."""


class AskWhy(_Question, frozen=True, tag="why"):
    """The query for the decisions about one address, answered by a `Why`."""

    url: str


class AskHosts(_Question, frozen=True, tag="hosts"):
    """The query for the hosts of the crawl, answered by `Hosts`: those with most queued addresses first."""

    limit: int = 100
    offset: int = 0


class AskSearch(_Question, frozen=True, tag="search"):
    """The query for documents with these words, answered by `Found`: best first.

    words: read up to LONGEST_SEARCH characters; one more shows the keeper that there are more.
    """

    words: str
    limit: int = 10
    offset: int = 0


class AskExport(_Question, frozen=True, tag="export"):
    """The query for the next documents of the index, answered by `Exported`.

    after: the previous answer's cursor; 0 at first. bodies: whether to include the pages' bodies.
    """

    after: int = 0
    bodies: bool = False


Question: TypeAlias = AskStatus | AskWhy | AskHosts | AskSearch | AskExport


# -- answers ---------------------------------------------------------------------------------------------


class NodeSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A running crawler, processor or keeper.

    host: its machine. at: when it last reported. done: since its start, the pages that it fetched or processed, or the
    messages that a keeper handled.
    """

    kind: str
    id: str
    at: float
    host: str = ""
    done: int = 0


class Status(_Answered, frozen=True, tag="status"):
    """The progress of a crawl.

    addresses: how many are in each state: "queued", "sent" and "done". outcomes: addresses by their latest outcome, a
    word of `OUTCOMES`. pages: all fetched so far. rate: pages a second over the last minute. documents: in the index.
    hosts: known. hosts_out: with a batch that a crawler has or that waits for one. hosts_waiting: with queued
    addresses, but not due yet. backlog: documents received but not applied yet. wire: bytes received from the sites.
    size: bytes of the pages, decompressed. carried: bytes of the pages on the broker, compressed. nodes: those that
    reported in the last 20 s; None if read from the database, which does not know them. crawl: the database's id.
    """

    at: float
    is_paused: bool = False
    addresses: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    pages: int = 0
    rate: float = 0.0
    documents: int = 0
    hosts: int = 0
    hosts_out: int = 0
    hosts_waiting: int = 0
    backlog: int = 0
    wire: int = 0
    size: int = 0
    carried: int = 0
    nodes: list[NodeSeen] | None = None
    crawl: str = ""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision or an event. outcome: a word of `OUTCOMES`. node: the node that made it, as `kind id`."""

    at: float
    outcome: str
    node: str = ""
    detail: str = ""


class Why(_Answered, frozen=True, tag="why"):
    """The decisions about an address, oldest first.

    url: normalised. state: "queued", "sent", "done", or "unknown" if never seen: `would` is then the outcome that it
    would have now, with `detail`. next_at: the earliest time of its next fetch. found_on: an address that links to it,
    or the robots.txt that names it. depth: links away from the start. cut: how many older decisions are left out.
    """

    url: str
    state: str
    decisions: list[Decision] = []
    would: str = ""
    detail: str = ""
    next_at: float | None = None
    found_on: str = ""
    depth: int | None = None
    cut: int = 0


class HostAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host of the crawl: `scheme://host:port`, of the scheme whose robots.txt was fetched last if it has both.

    delay: seconds between requests. next_at: when it is due. is_out: whether a batch of it is out. robots: the outcome
    of fetching its robots.txt, or empty if that is not known yet. last: the latest outcomes, newest first.
    """

    origin: str
    queued: int = 0
    sent: int = 0
    done: int = 0
    delay: float = 0.0
    next_at: float | None = None
    is_out: bool = False
    robots: str = ""
    last: list[Decision] = []


class Hosts(_Answered, frozen=True, tag="hosts"):
    """Hosts of a crawl, and their total number."""

    hosts: list[HostAnswer]
    total: int


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document found. snippet: part of its text; marks: start and end of the query's words in it."""

    url: str
    title: str
    snippet: str
    marks: list[tuple[int, int]]
    score: float
    fetched_at: float
    language: str = ""


class Found(_Answered, frozen=True, tag="found"):
    """The documents found, best first.

    total: the number of matches; if is_more, there are more, and only these were ranked. note: what part of the query
    was not searched for, and why.
    """

    hits: list[Hit]
    total: int
    is_more: bool = False
    note: str = ""


class Entry(msgspec.Struct, frozen=True):
    """An exported document. text: its visible text. links: the number of its links.

    body: as the server sent it, in zstd, if requested and stored; headers: those of the server's answer.
    """

    url: str
    final_url: str
    title: str
    status: int
    fetched_at: float
    text: str
    language: str = ""
    encoding: str = ""
    content_type: str = ""
    keywords: list[str] = []
    links: int = 0
    canonical: str | None = None
    fingerprint: int = 0
    crawler: str = ""
    processor: str = ""
    headers: dict[str, str] = {}
    body: bytes | None = None


class Exported(_Answered, frozen=True, tag="exported"):
    """Documents in the order of the cursor. after: the cursor for the next query; None at the end.

    total: the number of documents.
    """

    entries: list[Entry]
    after: int | None
    total: int


class Refused(_Answered, frozen=True, tag="refused"):
    """No answer. error: the reason and the remedy, on one line. is_usage: the query is wrong, not the database.

    is_busy: the same query may be answered a moment later.
    """

    error: str
    is_usage: bool = False
    is_busy: bool = False


Answered: TypeAlias = Status | Why | Hosts | Found | Exported | Refused
