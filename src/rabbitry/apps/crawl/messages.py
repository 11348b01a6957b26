"""Messages between crawlers, processors and keepers: JSON, except pages, whose body is the server's.

The `type` property holds the class name. Times are Unix timestamps (UTC).
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import msgspec

PAGE: Final = "Page"
"""The `type` of a page: body compressed with zstd, the rest in headers (contracts, section 5)."""

Purpose: TypeAlias = Literal["page", "robots", "sitemap"]
"""The purpose of a fetch. robots: the outcome includes the body, which the keeper reads."""


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address to fetch. etag, modified: of the last fetch, for a conditional request."""

    url: str
    purpose: Purpose = "page"
    etag: str | None = None
    modified: str | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses of one host, published when the host is due; a host has one batch out at a time.

    id: unique. origin: `scheme://host:port`, common to all its addresses. delay: seconds from the end of one answer to
    the next request. deadline: the time after which none of its addresses may be requested. contact: put into the
    User-Agent; without one, no public address is requested. connections: the most at once (1 if there is a delay).
    largest: bytes of a body after decompression. time_limit: seconds for one address.
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
    """The outcome of one address, published at once. A page to be processed is its own outcome.

    outcome: a word of `OUTCOMES`. detail: one readable line. retry_after: seconds that the server asks to wait.
    location: the absolute target of a redirect. body: of robots.txt, at most 500 KiB. size: bytes after decompression;
    wire: bytes received over the network. took: seconds.
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
    """The end of a batch, published after its pages and outcomes: it returns the host's token to the keeper.

    left: addresses that were not requested, with the reason: `late` (past the deadline), `interrupted` (the crawler
    stops, or the one before it died), `blocked` (the host answered 429 or 503, or not at all: the rest was not tried).
    wait: seconds from now until the host may be requested again.
    """

    batch: str
    origin: str
    crawler: str
    at: float
    wait: float
    left: list[str] = []
    why: str = ""


class Link(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """A link of a page or a sitemap, normalised, without its fragment. modified: a sitemap's lastmod.

    The garbage collector does not track them: a keeper holds thousands, and none is in a cycle.
    """

    url: str
    modified: float | None = None


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page as a processor read it. A sitemap's document has only links; a long sitemap has several documents.

    url: the requested one. fingerprint: simhash of the text, 64 bits, as a signed integer (0: too little text).
    noindex, nofollow: from its `meta` and the X-Robots-Tag header. canonical: absolute, if it is another address.
    links: unique, in page order; empty if nofollow; cut: how many more there were. missing: fields that another
    program's page lacks. is_index: it is a sitemap of sitemaps, so its links are sitemaps too. problem: a word of
    `OUTCOMES` if it could not be read, with `detail`. batch: the id of the batch that the page belongs to.
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
    # from a crawler
    "page": "fetched, and passed on for processing",
    "unchanged": "not changed since the last fetch (304)",
    "redirect": "redirects to another address, which is treated as a link",
    "robots": "the site's robots.txt was fetched",
    "client-error": "the server has no such page (4xx)",
    "server-error": "the server failed (5xx)",
    "slow-down": "the server asks to wait (429, 503)",
    "no-content": "the server answered without a page (204, 205)",
    "not-text": "neither HTML nor text nor XML",
    "too-large": "larger than the limit, before or after decompression",
    "bomb": "decompresses to far more than its size",
    "broken-encoding": "its content encoding is broken or unknown",
    "too-slow": "not complete within the time limit",
    "header-too-large": "its headers are larger than the limit",
    "no-such-host": "the host's name does not resolve",
    "no-connection": "the host does not answer, or closed the connection",
    "bad-certificate": "the certificate does not verify",
    "private": "on a private, loopback, link-local or metadata network",
    "no-contact": "public addresses need a contact for the site's owner (--contact)",
    "bad-answer": "not HTTP, or invalid HTTP",
    # from a processor
    "document": "processed: it is in the index",
    "sitemap": "read for its addresses",
    "unreadable": "no text could be extracted",
    "extractor-died": "the process that read it died or timed out, each time",
    # from the keeper
    "queued": "waits to be fetched",
    "sent": "a crawler has it, or it waits for one",
    "bad-address": "not an address that can be requested",
    "bad-scheme": "neither http nor https",
    "too-long": "longer than the limit for addresses",
    "out-of-scope": "not on the hosts of the crawl",
    "too-deep": "more links away from the start than the crawl's depth",
    "limit": "the crawl's page limit is reached",
    "disallowed": "the site's robots.txt forbids it",
    "trap": "one of a family of addresses without new content",
    "duplicate": "the same as another page, which is in the index",
    "noindex": "the page asks not to be indexed",
    "given-up": "failed each time",
}
"""Outcomes of an address and their meanings. `status` counts them, `why` lists them with time and node."""


_CONTACT: Final = re.compile(r"(mailto:)?[^\s@()<>:/]+@[^\s@()<>:/]+|https?://[^\s()<>/]+(/[^\s()<>]*)?", re.IGNORECASE)


def is_contact(text: str) -> bool:
    """Return whether a text is a mail address or the URL of a page, by which sites can reach the owner of a crawl."""
    return text.isascii() and _CONTACT.fullmatch(text) is not None


class Add(msgspec.Struct, frozen=True, omit_defaults=True, tag="add", tag_field="command"):
    """The command to crawl from these addresses. depth: the most links away from them; None: unlimited.

    same_host: stay on their hosts. allow: domains to stay on, with their subdomains. Neither: unlimited. limit: the
    most pages. contact: a mail address or a page, for the User-Agent; public addresses are requested only with one.
    delay: seconds between two requests to a host, unless its robots.txt asks for more; None: 1. recrawl: seconds before
    a page is fetched again at first; then the interval follows how often the page changes. None: never.
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
    """The command to send no more batches."""


class Resume(msgspec.Struct, frozen=True, tag="resume", tag_field="command"):
    """The command to send batches again."""


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="command"):
    """A keeper's own clock: the keeper that receives it is the active one, and sends what is due."""

    keeper: str


Command: TypeAlias = Add | Pause | Resume | Tick
COMMAND: Final = "Command"
"""The `type` of a command. One with `reply_to` is answered with an `Answer` once it is committed."""


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one address of an `Add`.

    url: normalised if possible. outcome: "queued", "known" (seen before; nothing changed), or the word of `OUTCOMES`
    for which it was refused, with a readable `detail`.
    """

    url: str
    outcome: str
    detail: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a command. error: why it was refused as a whole. said: other readable lines.

    addresses: those of an `Add`, each with its outcome, the refused ones first.
    """

    said: list[str] = []
    error: str = ""
    addresses: list[Taken] = []
