"""Messages between crawlers, processors and keepers: JSON, except pages, whose body is what the server sent.

The `type` property names the class. Times are seconds since 1970 (UTC).
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import msgspec

PAGE: Final = "Page"
"""The `type` of a page: body compressed with zstd, the rest in headers (contracts, section 5)."""

Purpose: TypeAlias = Literal["page", "robots", "sitemap"]
"""What an address is fetched for. robots: the body comes back in the outcome, the keeper reads it."""


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address to fetch. etag, modified: of the last fetch, for a conditional request."""

    url: str
    purpose: Purpose = "page"
    etag: str | None = None
    modified: str | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses of one host, published when the host is due: one batch of a host is out at a time.

    id: unique. origin: `scheme://host:port`, as all its addresses have it. delay: seconds from the end of one answer
    to the next request. deadline: after this, no address of it may be asked for any more. contact: stands in the
    User-Agent; without one, no public address is asked. connections: at most that many at once (1 if there is a
    delay). largest: bytes of a body after decompression. time_limit: seconds for one address.
    """

    id: str
    origin: str
    addresses: list[Address]
    delay: float
    deadline: float
    contact: str | None = None
    connections: int = 1
    largest: int = 4_000_000
    time_limit: float = 30.0


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one address, published as soon as it is known. A page that is to be processed is its own outcome.

    outcome: a word of `OUTCOMES`. detail: one line for people. retry_after: seconds that the server asked to be left
    alone. location: where a redirect leads, absolute. body: of robots.txt, at most 500 KiB. size: bytes after
    decompression; wire: bytes that came over the network. took: seconds.
    """

    batch: str
    url: str
    outcome: str
    at: float
    crawler: str
    detail: str = ""
    status: int | None = None
    location: str | None = None
    retry_after: float | None = None
    etag: str | None = None
    modified: str | None = None
    body: str | None = None
    size: int = 0
    wire: int = 0
    took: float = 0.0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of a batch, published after its pages and outcomes: the host's token comes back to the keeper.

    left: addresses that were not asked for, and why: `late` (past the deadline), `interrupted` (the crawler stops, or
    the one before it died), `blocked` (the host answered 429 or 503, or not at all: the rest was not tried). wait:
    seconds from now until the host may be asked again.
    """

    batch: str
    origin: str
    crawler: str
    at: float
    wait: float
    left: list[str] = []
    why: str = ""


class Link(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """An address that a page or a sitemap leads to, normalised, without its fragment. modified: a sitemap's lastmod.

    The garbage collector does not look at them: there are thousands in a keeper's hands, and none is in a cycle.
    """

    url: str
    modified: float | None = None


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page as a processor read it. The document of a sitemap has links alone; a long sitemap has several documents.

    url: as it was asked for. fingerprint: simhash of the text, 64 bits, as a signed integer (0: too little text).
    noindex, nofollow: of the page's `meta` and of the header X-Robots-Tag. canonical: absolute, if it is another
    address. links: unique, in the order of the page; empty if nofollow; cut: how many more there were. missing:
    what a page of another program did not say. is_index: it is a sitemap of sitemaps, so its links are sitemaps too.
    problem: a word of `OUTCOMES` if it could not be read, with `detail`. batch: the one that the page came with.
    """

    url: str
    at: float
    processor: str
    crawler: str = ""
    fetched_at: float = 0.0
    status: int = 200
    final_url: str = ""
    title: str = ""
    text: str = ""
    language: str = ""
    encoding: str = ""
    keywords: list[str] = []
    fingerprint: int = 0
    links: list[Link] = []
    cut: int = 0
    canonical: str | None = None
    noindex: bool = False
    nofollow: bool = False
    is_sitemap: bool = False
    is_index: bool = False
    missing: list[str] = []
    problem: str = ""
    detail: str = ""
    batch: str = ""


OUTCOMES: Final[dict[str, str]] = {
    # of a crawler
    "page": "fetched, and passed on to be processed",
    "unchanged": "not changed since the last fetch (304)",
    "redirect": "leads to another address, which is looked at as a link",
    "robots": "the rules of the site's robots.txt came",
    "client-error": "the server has no such page (4xx)",
    "server-error": "the server failed (5xx)",
    "slow-down": "the server asks to be left alone (429, 503)",
    "no-content": "the server answered that there is no page to show (204, 205)",
    "not-text": "neither HTML nor text nor XML",
    "too-large": "longer than a body may be, before or after decompression",
    "bomb": "decompresses to far more than it is",
    "broken-encoding": "its content encoding is broken or unknown",
    "too-slow": "not there within the time limit",
    "header-too-large": "more headers than are read",
    "no-such-host": "the host's name does not resolve",
    "no-connection": "the host does not answer, or ended the connection",
    "bad-certificate": "the certificate does not verify",
    "private": "leads to a private, loopback, link-local or metadata network",
    "no-contact": "a public address, and nobody said whom its owner can write to (--contact)",
    "bad-answer": "no HTTP, or HTTP that breaks the rules",
    # of a processor
    "document": "processed: it is in the index",
    "sitemap": "read for the addresses that it names",
    "unreadable": "no text could be made of it",
    "extractor-died": "the process that read it died or was past its time, each time",
    # of the keeper
    "queued": "waits for its turn",
    "sent": "in the hands of a crawler, or waiting for one",
    "bad-address": "no address, or one that can't be asked for",
    "bad-scheme": "neither http nor https",
    "too-long": "longer than an address may be",
    "out-of-scope": "not of the hosts that the crawl is to stay on",
    "too-deep": "more links away from the start than the crawl goes",
    "limit": "the crawl has as many pages as it was to have",
    "disallowed": "the site's robots.txt forbids it",
    "trap": "one of a family of addresses that bring nothing new",
    "duplicate": "the same as another page, which is in the index",
    "noindex": "the page asks not to be in an index",
    "given-up": "failed each time that it was tried",
}
"""Outcomes of an address and their meanings. `status` counts them, `why` lists them with time and node."""


_CONTACT: Final = re.compile(r"(mailto:)?[^\s@()<>:/]+@[^\s@()<>:/]+|https?://[^\s()<>/]+(/[^\s()<>]*)?", re.IGNORECASE)


def is_contact(text: str) -> bool:
    """Return whether a text is a mail address or the URL of a page, by which sites can reach the owner of a crawl."""
    return text.isascii() and _CONTACT.fullmatch(text) is not None


class Add(msgspec.Struct, frozen=True, omit_defaults=True, tag="add", tag_field="command"):
    """Begin to crawl from these addresses. depth: links away from them; None: without a bound.

    same_host: stay on their hosts. allow: domains (and what is under them) to stay on. Neither: no bound. limit:
    pages at most. contact: a mail address or a page, for the User-Agent; public addresses are asked with one alone.
    delay: seconds between two requests to a host, if its robots.txt does not ask for more; None: 1. recrawl:
    seconds until a page is fetched again, at first; then it follows how often the page changes. None: never.
    """

    urls: list[str]
    depth: int | None = None
    same_host: bool = False
    allow: list[str] = []
    limit: int | None = None
    contact: str | None = None
    delay: float | None = None
    recrawl: float | None = None


class Pause(msgspec.Struct, frozen=True, tag="pause", tag_field="command"):
    """Send no more batches."""


class Resume(msgspec.Struct, frozen=True, tag="resume", tag_field="command"):
    """Send batches again."""


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="command"):
    """A keeper's own clock: whoever receives one is the active keeper, and sends what is due."""

    keeper: str


Command: TypeAlias = Add | Pause | Resume | Tick
COMMAND: Final = "Command"
"""The `type` of a command. One with `reply_to` is answered with an `Answer` once it is committed."""


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one address of an `Add`.

    url: normalised if it could be, else as it came. outcome: "queued", "known" (nothing changed, it was seen
    before), or the word of `OUTCOMES` for which it was refused, with `detail` for people.
    """

    url: str
    outcome: str
    detail: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a command. error: why it was refused as a whole. said: other lines for people.

    addresses: of an `Add`, each with its outcome, those that were refused first.
    """

    said: list[str] = []
    error: str = ""
    addresses: list[Taken] = []
