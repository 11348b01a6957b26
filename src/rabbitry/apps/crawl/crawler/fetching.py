"""Fetching one address: from resolving its name to a page or another outcome."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple

import ada_url
import msgspec

from rabbitry.apps.crawl.crawler.bodies import Body, BodyReader
from rabbitry.apps.crawl.crawler.budgets import Bandwidth, Room
from rabbitry.apps.crawl.crawler.curl_handle import Collect, CurlHandle, Request, Response
from rabbitry.apps.crawl.crawler.decoding import encodings_of
from rabbitry.apps.crawl.crawler.networks import Networks, Verdict
from rabbitry.apps.crawl.crawler.resolving import NoSuchHost, Resolver
from rabbitry.apps.crawl.crawler.responses import Head, is_text
from rabbitry.apps.crawl.crawler.targets import Target, Targets, target_of
from rabbitry.apps.crawl.crawler.transfers import Transfers
from rabbitry.apps.crawl.messages import Address, Batch, Outcome, Purpose
from rabbitry.apps.crawl.problems import Problem

ROBOTS_LARGEST: Final = 500 << 10
"""Bytes read of a robots.txt (RFC 9309, section 2.5: at least 500 KiB)."""
ROBOTS_HOPS: Final = 5
"""Redirects followed for a robots.txt (RFC 9309, section 2.3.1.2)."""
SITEMAP_LARGEST: Final = 50_000_000
"""The most bytes of a sitemap (https://www.sitemaps.org/protocol.html), after decompression."""
_LONGEST_CONTACT: Final = 200
_LONGEST_DETAIL: Final = 300
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SLOW_DOWN: Final = frozenset({429, 503})
_NOT_MODIFIED: Final = 304
_NO_CONTENT: Final = frozenset({204, 205})


class Page(msgspec.Struct, frozen=True, eq=False):
    """A page or sitemap for the processors.

    body: compressed with zstd if the fetcher packs. headers: the kept ones of the server's. fetched_at: Unix time.
    wire: bytes over the network. size: bytes of the body before compression. took: seconds.
    """

    url: str
    final_url: str
    purpose: Purpose
    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]
    fetched_at: float
    wire: int
    size: int
    took: float


class _Place(NamedTuple):
    """The location of a host. addresses: its IP addresses that may be connected to."""

    addresses: Sequence[str]


class BatchHosts:
    """The hosts of a batch, each resolved once, so that DNS rebinding has no effect."""

    def __init__(self, fetcher: Fetcher, batch: Batch) -> None:
        self._fetcher = fetcher
        self._is_known = bool(batch.contact)
        self._places: dict[str, _Place | Problem] = {}
        self.targets: Targets = Targets()

    async def place(self, target: Target) -> _Place:
        """Return the location of a target's host. Raises Problem: no-such-host, private, no-contact."""
        found = self._places.get(target.host)
        if found is None:
            try:
                found = await self._fetcher.look_up(target, is_known=self._is_known)
            except Problem as problem:
                found = problem
            self._places[target.host] = found
        if isinstance(found, Problem):
            raise Problem(found.outcome, found.detail)
        return found


class Fetcher:
    """Fetches addresses over kept connections. Bound to the event loop that created it.

    Args:
        crawler: The id of the node, for outcomes.
        version: Rabbitry's, for the User-Agent.
        networks: The networks that may be connected to.
        resolver: Resolves host names.
        room: Memory for bodies; the caller releases each page.
        bandwidth: The limit of bytes a second.
        connections: The most connections kept.
        is_packing: Whether bodies of pages are compressed.
    """

    def __init__(
        self,
        crawler: str,
        version: str,
        networks: Networks,
        resolver: Resolver,
        room: Room,
        bandwidth: Bandwidth,
        *,
        connections: int,
        is_packing: bool = True,
    ) -> None:
        self._crawler = crawler
        self._version = version
        self._networks = networks
        self._resolver = resolver
        self._room = room
        self._bandwidth = bandwidth
        self._is_packing = is_packing
        self._transfers = Transfers(connections)
        self._handles: list[CurlHandle] = []
        """Free handles."""
        self._decoding = asyncio.Semaphore(1)

    def close(self) -> None:
        """Close all connections. No fetch may be running."""
        for handle in self._handles:
            handle.close()
        self._transfers.close()

    async def fetch(self, address: Address, batch: Batch, host: BatchHosts) -> Page | Outcome:
        """Fetch one address, and return the page or the outcome. Cancelling ends the request.

        host: from `host`, shared by all addresses of the batch.
        """
        begun = time.monotonic()
        try:
            if address.purpose == "robots":
                return await self._robots(address, batch, host)
            return await self._page(address, batch, host)
        except Problem as problem:
            return self._outcome(address, batch, problem.outcome, detail=problem.detail, took=time.monotonic() - begun)

    def host(self, batch: Batch) -> BatchHosts:
        """Return the cache of IP addresses for a batch's hosts."""
        return BatchHosts(self, batch)

    async def look_up(self, target: Target, *, is_known: bool) -> _Place:
        """Resolve a host. Raises Problem: no-such-host, private, no-contact.

        If a name has public and private addresses, only the public ones are used.
        """
        try:
            found = [target.host] if target.is_literal else await self._resolver.addresses(target.host)
        except NoSuchHost as error:
            raise Problem("no-such-host", f"'{target.host}' does not resolve: {error}") from error
        verdicts = {each: self._networks.judge(each) for each in found}
        usable = [
            each
            for each, verdict in verdicts.items()
            if verdict is Verdict.ALLOWED or (verdict is Verdict.PUBLIC and is_known)
        ]
        if usable:
            return _Place(usable)
        if Verdict.PUBLIC in verdicts.values():
            raise Problem("no-contact", f"'{target.host}' is public: name a contact for its owner (--contact)")
        if not found:
            raise Problem("no-such-host", f"'{target.host}' has no IP address")
        why = "is not a public address" if target.is_literal else f"resolves to {', '.join(found[:4])}"
        raise Problem("private", f"'{target.host}' {why}: allow it with the crawler's --allow-private")

    # -- pages and sitemaps ------------------------------------------------------------------------------

    async def _page(self, address: Address, batch: Batch, host: BatchHosts) -> Page | Outcome:
        target = host.targets.target_of(address.url)
        headers = []
        if address.etag and _is_sendable(address.etag):
            headers.append(f"If-None-Match: {address.etag}")
        if address.modified and _is_sendable(address.modified):
            headers.append(f"If-Modified-Since: {address.modified}")
        is_page = address.purpose == "page"
        largest = batch.largest if is_page else max(batch.largest, SITEMAP_LARGEST)
        collect = partial(self._reader, largest, is_page=is_page)
        response = await self._ask(target, batch, host, collect, headers)
        if response.body is None:
            return self._no_page(address, batch, target, response)
        try:
            body = await response.body.finish(self._decoding)
            if is_page and not is_text(response.head.media_type, body.head):
                raise Problem("not-text", response.head.media_type or "no Content-Type, and not text")
        except BaseException:
            self._room.release(response.body)
            raise
        return self._made(address, target, response, body)

    def _made(self, address: Address, target: Target, response: Response, body: Body) -> Page:
        assert response.body is not None  # noqa: S101 # it is complete; narrows the type
        page = Page(
            url=address.url,
            final_url=target.url,
            purpose=address.purpose,
            status=response.head.status,
            body=body.data,
            content_type=response.head.get("content-type") or "",
            headers=response.head.kept,
            fetched_at=time.time(),
            wire=response.wire,
            size=body.size,
            took=response.took,
        )
        self._room.came(page, len(page.body))
        self._room.release(response.body)
        return page

    def _reader(self, largest: int, head: Head, *, is_page: bool) -> BodyReader | None:
        """Return the reader for the body of a wanted page. Raises Problem for an unwanted one."""
        if not 200 <= head.status < 300 or head.status in _NO_CONTENT:
            return None
        if is_page and head.media_type and not is_text(head.media_type, b""):
            raise Problem("not-text", head.media_type[:100])
        if head.length is not None and head.length > largest:
            raise Problem("too-large", f"{head.length} bytes")
        return BodyReader(encodings_of(head.get("content-encoding") or ""), largest, is_packed=self._is_packing)

    def _no_page(self, address: Address, batch: Batch, target: Target, response: Response) -> Outcome:
        """Return the outcome of a response without a page."""
        status, head = response.head.status, response.head
        location = None
        detail = ""
        if status in _SLOW_DOWN:
            outcome = "slow-down"
        elif status == _NOT_MODIFIED:
            outcome = "unchanged"
        elif 300 <= status < 400:
            outcome = "redirect"
            location = _location(head, target)
            detail = location[:_LONGEST_DETAIL]
        elif 400 <= status < 500:
            outcome = "client-error"
        elif 500 <= status < 600:
            outcome = "server-error"
        elif status in _NO_CONTENT:
            outcome = "no-content"
        else:
            raise Problem("bad-answer", f"status {status}")
        return self._outcome(
            address,
            batch,
            outcome,
            detail=detail,
            status=status,
            location=location,
            retry_after=head.retry_after if status in _SLOW_DOWN else None,
            etag=head.get("etag"),
            modified=head.get("last-modified"),
            wire=response.wire,
            took=response.took,
        )

    # -- robots.txt --------------------------------------------------------------------------------------

    async def _robots(self, address: Address, batch: Batch, host: BatchHosts) -> Outcome:
        """Fetch the robots.txt of an origin, following redirects; each hop is resolved and checked like the first."""
        target = target_of(address.url)
        wire, took = 0, 0.0
        for hops in range(ROBOTS_HOPS + 1):
            response = await self._ask(target, batch, host, _robots_reader, [])
            wire, took = wire + response.wire, took + response.took
            response = response._replace(wire=wire, took=took)
            if response.body is not None:
                break
            if response.head.status not in _REDIRECTS or hops == ROBOTS_HOPS:
                return self._no_page(address, batch, target, response)
            target = target_of(_location(response.head, target))
        assert response.body is not None  # noqa: S101 # the loop ends with a body; narrows the type
        try:
            body = await response.body.finish(self._decoding)
        finally:
            self._room.release(response.body)
        # It must be UTF-8 (RFC 9309, section 2.2), but a file in an editor's UTF-16 is the owner's wish too.
        is_utf16 = body.data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = body.data.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
        return self._outcome(
            address,
            batch,
            "robots",
            detail="" if target.url == address.url else f"from {target.url[:_LONGEST_DETAIL]}",
            status=response.head.status,
            body=text,
            size=body.size,
            wire=wire,
            took=took,
        )

    # -- both --------------------------------------------------------------------------------------------

    async def _ask(
        self, target: Target, batch: Batch, host: BatchHosts, collect: Collect, headers: Sequence[str]
    ) -> Response:
        place = await host.place(target)
        handle = self._handles.pop() if self._handles else self._new_handle()
        request = Request(
            target=target,
            addresses=place.addresses,
            is_known=bool(batch.contact),
            user_agent=user_agent(self._version, batch.contact),
            headers=headers,
            collect=collect,
            time_limit=batch.time_limit,
        )
        try:
            return await handle.run(request)
        finally:
            self._handles.append(handle)

    def _new_handle(self) -> CurlHandle:
        return CurlHandle(self._transfers, self._networks, self._room, self._bandwidth)

    def _outcome(  # noqa: PLR0913 - the fields of an outcome
        self,
        address: Address,
        batch: Batch,
        outcome: str,
        *,
        detail: str = "",
        status: int | None = None,
        location: str | None = None,
        retry_after: float | None = None,
        etag: str | None = None,
        modified: str | None = None,
        body: str | None = None,
        size: int = 0,
        wire: int = 0,
        took: float = 0.0,
    ) -> Outcome:
        return Outcome(
            batch=batch.id,
            url=address.url,
            outcome=outcome,
            at=time.time(),
            crawler=self._crawler,
            detail=detail[:_LONGEST_DETAIL],
            status=status,
            location=location,
            retry_after=retry_after,
            etag=etag,
            modified=modified,
            body=body,
            size=size,
            wire=wire,
            took=took,
        )


def _robots_reader(head: Head) -> BodyReader | None:
    """Return the reader for a robots.txt; a longer one is cut."""
    if not 200 <= head.status < 300:
        return None
    encodings = encodings_of(head.get("content-encoding") or "")
    return BodyReader(encodings, ROBOTS_LARGEST, is_packed=False, may_be_cut=True)


def _location(head: Head, target: Target) -> str:
    """Return the absolute target of a redirect. Raises Problem."""
    text = head.get("location")
    if not text:
        raise Problem("bad-answer", f"status {head.status} without a Location")
    try:
        return ada_url.URL(text, target.url).href
    except (ValueError, UnicodeError) as error:
        raise Problem("bad-answer", f"redirects to '{text[:200]}', which is not an address") from error


def _is_sendable(text: str) -> bool:
    """Return whether a server's value can be sent in a request header without ending it."""
    return text.isascii() and text.isprintable() and len(text) < 1000


@lru_cache(maxsize=256)
def user_agent(version: str, contact: str | None) -> str:
    """Return the User-Agent. contact: characters that are not printable ASCII or would end the comment are left out."""
    said = "".join(
        letter for letter in (contact or "") if letter.isascii() and letter.isprintable() and letter not in "()"
    )
    return f"rabbitry/{version} (+{said[:_LONGEST_CONTACT]})" if said else f"rabbitry/{version}"
