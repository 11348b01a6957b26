"""A curl handle: HTTP requests one after the other, with options that confine them."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from socket import socket
from typing import Final, NamedTuple, TypeAlias

import pycurl

from rabbitry.apps.crawl.crawler.bodies import BodyReader
from rabbitry.apps.crawl.crawler.budgets import Bandwidth, Room
from rabbitry.apps.crawl.crawler.decoding import ACCEPTED
from rabbitry.apps.crawl.crawler.networks import Networks, Verdict
from rabbitry.apps.crawl.crawler.responses import Head
from rabbitry.apps.crawl.crawler.targets import Target
from rabbitry.apps.crawl.crawler.transfers import IDLE_SECONDS, Transfers
from rabbitry.apps.crawl.problems import Problem

CONNECT_WITHIN: Final = 10.0
"""Seconds to connect, TLS included."""
SLOWEST: Final = 100
SLOW_SECONDS: Final = 15
"""Seconds after which a response slower than SLOWEST bytes a second is aborted."""
_BUFFER: Final = 1 << 16
_BAD_CERTIFICATE: Final = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_ISSUER_ERROR})
_BAD_ANSWER: Final = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,  # HTTP/0.9
        8,  # CURLE_WEIRD_SERVER_REPLY
        pycurl.E_BAD_CONTENT_ENCODING,  # a transfer encoding that was not requested
        pycurl.E_HTTP2,
        92,  # CURLE_HTTP2_STREAM
        43,  # CURLE_BAD_FUNCTION_ARGUMENT, caused by a header with a zero byte
    }
)
_TOO_LARGE: Final = 100  # CURLE_TOO_LARGE: the headers


Collect: TypeAlias = Callable[[Head], BodyReader | None]


class Request(NamedTuple):
    """A request.

    addresses: the host's IP addresses, all permitted. is_known: whether the owner of the crawl left a contact, without
    which no public address is requested. collect: called with the head, returns the body's reader; it raises Problem if
    the body is not wanted, and returns None to skip it. time_limit: seconds.
    """

    target: Target
    addresses: Sequence[str]
    is_known: bool
    user_agent: str
    headers: Sequence[str]
    collect: Collect
    time_limit: float


class Response(NamedTuple):
    """A response. body: None if it was not read. wire: bytes over the network. took: seconds."""

    head: Head
    body: BodyReader | None
    wire: int
    took: float


class CurlHandle:
    """A curl handle, used for one request after the other, and the state of the current request."""

    def __init__(self, transfers: Transfers, networks: Networks, room: Room, bandwidth: Bandwidth) -> None:
        self._transfers = transfers
        self._networks = networks
        self._room = room
        self._bandwidth = bandwidth
        self._loop = asyncio.get_running_loop()
        self._curl = self._made()
        self._request: Request | None = None
        self._head = Head()
        self._body: BodyReader | None = None
        self._problem: Problem | None = None
        self._is_enough = False
        """Whether all wanted data has arrived, and the transfer was ended for it."""
        self._unread = 0
        """Bytes of a body that is not read."""
        self._refused = ""
        """The IP address to which a connection was refused."""
        self._limit: asyncio.TimerHandle | None = None
        """Ends the request at its time limit."""
        self._sent: tuple[str, Sequence[str]] = ("", ())
        """The User-Agent and headers set for the previous request."""
        self._resuming: asyncio.Task[None] | None = None

    async def run(self, request: Request) -> Response:
        """Send a request and return the response. Raises Problem. Cancelling ends the request and its connection."""
        curl, target = self._curl, request.target
        self._begin(request)
        curl.setopt(pycurl.URL, target.url)
        if (sent := (request.user_agent, request.headers)) != self._sent:
            curl.setopt(pycurl.USERAGENT, request.user_agent)
            curl.setopt(pycurl.HTTPHEADER, [*_HEADERS, *request.headers])
            self._sent = sent
        if not target.is_literal:
            # "+": the entry expires in libcurl's name cache; a later one for the same host replaces it.
            pinned = ",".join(f"[{each}]" if ":" in each else each for each in request.addresses)
            curl.setopt(pycurl.RESOLVE, [f"+{target.host}:{target.port}:{pinned}"])
        # A plain timer, because `asyncio.timeout` takes as long as setting all options of the request.
        self._limit = self._loop.call_later(request.time_limit, self._end_late)
        try:
            await self._transfers.perform(curl)
        except TimeoutError as error:
            if not self._is_answered:
                self._forget()
                raise self._late(f"not complete after {request.time_limit:g} s") from error
        except pycurl.error as error:
            if not self._is_enough and not self._is_answered:
                self._forget()
                raise self._problem_of(*error.args) from error
        except BaseException:
            self._forget()
            raise
        finally:
            if self._resuming is not None:
                self._resuming.cancel()
                self._resuming = None
            self._limit.cancel()
            self._request = self._limit = None
            self._bandwidth.spend(self._head.size + curl.getinfo(pycurl.REQUEST_SIZE))
        body, self._body = self._body, None  # it may be large, and the next request may take long
        if body is not None:
            self._room.came(body, body.held)
        wire = self._head.size + int(curl.getinfo(pycurl.SIZE_DOWNLOAD_T))
        return Response(self._head, body, wire, curl.getinfo(pycurl.TOTAL_TIME))

    def close(self) -> None:
        """Free the handle. No request may be running."""
        self._curl.close()

    def _begin(self, request: Request) -> None:
        self._request = request
        self._head, self._body, self._problem = Head(), None, None
        self._is_enough, self._unread, self._refused = False, 0, ""

    @property
    def _is_answered(self) -> bool:
        """Whether the head is the complete answer, so that a missing or broken body does not matter."""
        return self._head.is_complete and self._body is None and self._problem is None

    def _forget(self) -> None:
        if self._body is not None:
            self._room.release(self._body)
            self._body = None

    def _made(self) -> pycurl.Curl:
        curl = pycurl.Curl()
        for option, value in _OPTIONS.items():
            curl.setopt(option, value)
        paths = ssl.get_default_verify_paths()  # the wheel's libcurl has the paths of its build machine
        if paths.cafile:
            curl.setopt(pycurl.CAINFO, paths.cafile)
        if paths.capath:
            curl.setopt(pycurl.CAPATH, paths.capath)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_chunk)
        return curl

    # -- called by libcurl -------------------------------------------------------------------------------

    def _open_socket(self, _purpose: int, endpoint: tuple[int, int, int, tuple[str, int]]) -> socket | int:
        """Open a socket only to a permitted IP address: the final check, whatever led to the address."""
        family, kind, protocol, address = endpoint
        assert self._request is not None  # noqa: S101 # libcurl calls within `run`; narrows the type
        verdict = self._networks.judge(address[0])
        if verdict is Verdict.REFUSED or (verdict is Verdict.PUBLIC and not self._request.is_known):
            self._refused = address[0]
            bad: int = pycurl.SOCKET_BAD
            return bad
        opened = socket(family, kind, protocol)
        self._loop.call_soon(opened.close)  # pycurl duplicates it
        return opened

    def _take_header(self, line: bytes) -> int | None:
        assert self._request is not None  # noqa: S101 # libcurl calls within `run`; narrows the type
        was_complete = self._head.is_complete
        try:
            self._head.take(line)
            if self._head.is_complete and not was_complete:
                self._body = self._request.collect(self._head)
        except Problem as problem:
            self._problem = problem
            return _STOP
        return None

    def _take_chunk(self, chunk: bytes) -> int | None:
        body = self._body
        if body is None:
            # To keep the connection, a short unwanted body is read, but not a long one.
            self._unread += len(chunk)
            self._is_enough = max(self._unread, self._head.length or 0) > _SHORT
            return _STOP if self._is_enough else None
        if self._bandwidth.pause() or not self._room.may_grow(body):
            self._resuming = self._loop.create_task(self._resume(body))
            pause: int = pycurl.WRITEFUNC_PAUSE
            return pause
        self._bandwidth.spend(len(chunk))
        try:
            body.take(chunk)
        except Problem as problem:
            self._problem = problem
            return _STOP
        self._room.hold(body, body.held)
        self._is_enough = body.is_cut
        return _STOP if self._is_enough else None

    async def _resume(self, body: BodyReader) -> None:
        """Resume a paused transfer when there is bandwidth and room; the pause does not count for the time limit."""
        assert self._limit is not None  # noqa: S101 # `run` cancels this task before it ends; narrows the type
        left = self._limit.when() - self._loop.time()
        self._limit.cancel()
        while True:
            if pause := self._bandwidth.pause():
                await asyncio.sleep(pause)
            elif not self._room.may_grow(body):
                await self._room.changed()
            else:
                break
        self._limit = self._loop.call_later(left, self._end_late)
        self._resuming = None
        self._transfers.resume(self._curl)

    def _end_late(self) -> None:
        self._transfers.fail(self._curl, TimeoutError())

    # -- errors ------------------------------------------------------------------------------------------

    def _problem_of(self, code: int, text: str) -> Problem:
        """Return the problem for an error of libcurl."""
        if self._problem is not None:
            return self._problem
        if self._refused:
            if self._networks.judge(self._refused) is Verdict.PUBLIC:
                return Problem("no-contact", f"{self._refused} is public")
            return Problem("private", f"resolves to {self._refused}")
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return self._late(text)
        if code == pycurl.E_URL_MALFORMAT:
            return Problem("bad-address", text)
        if code == pycurl.E_COULDNT_RESOLVE_HOST:
            return Problem("no-such-host", text)
        if code in _BAD_CERTIFICATE:
            return Problem("bad-certificate", text)
        if code == _TOO_LARGE:
            return Problem("header-too-large", text or "more headers than libcurl reads")
        is_interim = code == pycurl.E_GOT_NOTHING and self._head.status > 0
        is_broken_chunk = code == pycurl.E_RECV_ERROR and "chunk" in text
        if code in _BAD_ANSWER or is_interim or is_broken_chunk:
            return Problem("bad-answer", text)
        return Problem("no-connection", text or os.strerror(self._curl.getinfo(pycurl.OS_ERRNO)))

    def _late(self, text: str) -> Problem:
        # Connection times are 0 also if the connection was reused.
        is_connected = self._curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
        return Problem("too-slow" if is_connected else "no-connection", text)


_STOP: Final = -1
"""Returned to libcurl instead of a number of bytes, it ends the transfer (CURLE_WRITE_ERROR)."""
_SHORT: Final = 1 << 14
_HEADERS: Final = (
    "Accept: text/html, application/xhtml+xml, application/xml;q=0.9, text/*;q=0.8, */*;q=0.1",
    f"Accept-Encoding: {ACCEPTED}",
)
_OPTIONS: Final[dict[int, object]] = {
    pycurl.NOSIGNAL: 1,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.PROXY: "",  # no proxy, even if the environment names one
    pycurl.NOPROXY: "*",
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
    pycurl.HTTP09_ALLOWED: 0,
    pycurl.PATH_AS_IS: 1,
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.CONNECTTIMEOUT_MS: int(CONNECT_WITHIN * 1000),
    pycurl.LOW_SPEED_LIMIT: SLOWEST,
    pycurl.LOW_SPEED_TIME: SLOW_SECONDS,
    pycurl.MAXAGE_CONN: IDLE_SECONDS,
    pycurl.BUFFERSIZE: _BUFFER,
}
