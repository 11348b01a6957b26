"""Questions about a crawl and their answers, as JSON: over the broker, from the database, to the page.

Times are seconds since 1970 (UTC). A question names itself in `question`, an answer in `answer`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

MOST_HOSTS: Final = 1_000
MOST_FOUND: Final = 100
"""Entries of one answer at most."""


class _Question(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="question"):
    pass


class _Answered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="answer"):
    pass


# -- questions -------------------------------------------------------------------------------------------


class AskStatus(_Question, frozen=True, tag="status"):
    """The question how far the crawl is, answered by a `Status`."""


class AskWhy(_Question, frozen=True, tag="why"):
    """The question what was decided about one address, answered by a `Why`."""

    url: str


class AskHosts(_Question, frozen=True, tag="hosts"):
    """The question for the hosts of the crawl, answered by `Hosts`: those with most queued addresses first."""

    limit: int = 100
    offset: int = 0


class AskSearch(_Question, frozen=True, tag="search"):
    """The question for documents with these words, answered by `Found`: best first."""

    words: str
    limit: int = 10
    offset: int = 0


class AskExport(_Question, frozen=True, tag="export"):
    """The question for the next documents of the index, answered by `Exported`.

    after: the cursor of the answer before; 0 at first. bodies: with the pages as they came.
    """

    after: int = 0
    bodies: bool = False


Question: TypeAlias = AskStatus | AskWhy | AskHosts | AskSearch | AskExport


# -- answers ---------------------------------------------------------------------------------------------


class NodeSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A crawler, processor or keeper that runs.

    host: the machine. at: when it was last heard of. done: pages that were fetched or processed, messages that a
    keeper has handled, since the node started.
    """

    kind: str
    id: str
    at: float
    host: str = ""
    done: int = 0


class Status(_Answered, frozen=True, tag="status"):
    """The progress of a crawl.

    addresses: how many are in each state: "queued", "sent" and "done". outcomes: the latest outcome of each address,
    counted by the words of `OUTCOMES`. pages: fetched in all. rate: pages a second over the last minute.
    documents: in the index. hosts: known. hosts_out: with a batch in a crawler's hands, or waiting for one.
    hosts_waiting: with addresses queued, not due yet. backlog: documents that the keeper has taken and not applied yet.
    wire: bytes that came from the sites. size: bytes of the pages, decompressed. carried: bytes of the pages on the
    broker, compressed. nodes: heard of in the last 20 s; None if nobody listened, as the database knows none. crawl:
    the identity of the database.
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
    """A decision or an event. outcome: a word of `OUTCOMES`. node: who it was, as `kind id`."""

    at: float
    outcome: str
    node: str = ""
    detail: str = ""


class Why(_Answered, frozen=True, tag="why"):
    """The decisions about an address, oldest first.

    url: normalised. state: "queued", "sent", "done", or "unknown": never seen, and `would` is the outcome that it
    would have now, `detail` says more. next_at: when it is fetched next at the earliest. found_on: an address with a
    link to it. depth: links away from the start. cut: how many older decisions are left out.
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
    """A host of the crawl: `scheme://host:port`.

    delay: seconds between requests. next_at: when it is due. is_out: a batch of it is out. robots: an outcome's word,
    or empty if its rules are not known yet. last: the latest outcomes, newest first.
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
    """Hosts of a crawl, and how many there are in all."""

    hosts: list[HostAnswer]
    total: int


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document that was found. snippet: of its text; marks: where words of the question begin and end in it."""

    url: str
    title: str
    snippet: str
    marks: list[tuple[int, int]]
    score: float
    fetched_at: float
    language: str = ""


class Found(_Answered, frozen=True, tag="found"):
    """Documents that were found, best first.

    total: how many there are; if is_more, at least so many: only these were ranked.
    """

    hits: list[Hit]
    total: int
    is_more: bool = False


class Entry(msgspec.Struct, frozen=True):
    """A document as it is exported. text: what a reader sees. links: how many the page has.

    body: what the server sent, zstd, if it was asked for and is known; headers: of the server's answer.
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
    """Documents in the order of the cursor. after: where the next answer goes on; None at the end.

    total: how many documents there are.
    """

    entries: list[Entry]
    after: int | None
    total: int


class Refused(_Answered, frozen=True, tag="refused"):
    """No answer. error: why, and what to do, on one line. is_usage: the question is wrong, and not the database.

    is_busy: the same question may be answered a moment later.
    """

    error: str
    is_usage: bool = False
    is_busy: bool = False


Answered: TypeAlias = Status | Why | Hosts | Found | Exported | Refused
