"""Web sites for tests: many hosts on addresses of 127.0.0.0/8, one port, and a log of their own of each request.

A site is a function from a `Request` to an `Answer`; `tests.support.pages` makes them. `Sites` serves one from a thread
of the test's process, `SitesProcess` from a process of its own, for benchmarks and whatever else keeps the test's
process busy.
"""

import asyncio
import contextlib
import http.client
import itertools
import pickle
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias, cast
from urllib.parse import unquote

import trustme
import uvloop

from tests.support.ports import free_port

HTML: Final = "text/html; charset=utf-8"
_PER_NET: Final = 250
_LARGEST_HEADER: Final = 1 << 20
_DEADLINE: Final = 90.0


def host(number: int) -> str:
    """Return the address of a host, 127.1.0.1 for number 0. The first 62,500 numbers have addresses."""
    return f"127.1.{number // _PER_NET}.{number % _PER_NET + 1}"


class Request(NamedTuple):
    """A request. host: of the `Host` header, without port; address: the one that the client connected to.

    target: path and query, as they came. headers: names in lower case. origin: `scheme://host:port`.
    """

    method: str
    target: str
    host: str
    address: str
    origin: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path, without the query, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        """What stands after the question mark."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    kind: the content type; "" for none. headers: more of them; a Content-Length among them replaces the true one.
    after: seconds until the answer begins. pieces: the body in pieces instead of `body`, sent chunked as fast as the
    client reads, `pause` seconds between two; they may never end. raw: sent as it is, then the connection is closed;
    b"" closes it without an answer. never: no answer at all, and the connection stays open.
    """

    body: bytes = b""
    status: int = 200
    kind: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    after: float = 0.0
    pieces: Callable[[], Iterable[bytes]] | None = None
    pause: float = 0.0
    raw: bytes | None = None
    never: bool = False


Site: TypeAlias = Callable[[Request], Answer]
NOT_FOUND: Final = Answer(b"<title>404</title><p>There is no such page here.", 404)


class Entry(NamedTuple):
    """A request in the log.

    began: when all of it had come. ended: just before the last byte of the answer was handed to the socket, so before
    anybody could have it, or when the connection was lost (both of time.monotonic()). status: 0 where there was no
    answer. size: bytes of the body, as sent.
    """

    began: float
    ended: float
    host: str
    address: str
    target: str
    agent: str
    status: int
    size: int
    connection: int


class Log(list[Entry]):
    """All requests, in the order in which they ended."""

    def pages(self) -> "Log":
        """Return the requests for anything but robots.txt."""
        return Log(entry for entry in self if entry.target != "/robots.txt")

    def of(self, host: str) -> "Log":
        """Return the requests to one host."""
        return Log(entry for entry in self if entry.host == host)

    def targets(self) -> list[str]:
        """Return the requested targets."""
        return [entry.target for entry in self]

    def gaps(self) -> dict[str, list[float]]:
        """Return for each host the seconds from the end of each answer to the start of the next request.

        Negative where a request came while another one was under way.
        """
        hosts: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(self):
            hosts[entry.host].append(entry)
        return {
            name: [after.began - before.ended for before, after in itertools.pairwise(entries)]
            for name, entries in hosts.items()
        }


@dataclass
class Setting:
    """What a server serves. hosts: how many addresses it listens on, from `host(0)` on; 127.0.0.1 comes on top.

    certificates: TLS, with a certificate for each host in this folder.
    """

    site: Site
    hosts: int = 1
    addresses: list[str] = field(default_factory=list)
    certificates: Path | None = None
    port: int = 0

    @property
    def scheme(self) -> str:
        """The scheme of its addresses."""
        return "https" if self.certificates else "http"

    def sockets(self) -> list[socket.socket]:
        """Bind a socket for each address, all on one port."""
        addresses = ["127.0.0.1", *(host(number) for number in range(self.hosts)), *self.addresses]
        for _ in range(20):
            port = self.port or free_port()
            with contextlib.ExitStack() as stack:
                bound = [stack.enter_context(socket.socket()) for _ in addresses]
                try:
                    for one, address in zip(bound, addresses, strict=True):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        one.bind((address, port))
                except OSError:
                    if self.port:
                        raise
                    continue  # somebody has that port on one of the addresses
                stack.pop_all()
                self.port = port
                return bound
        raise OSError("no port is free on all addresses")

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context."""
        if self.certificates is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.certificates / "server.pem")
        return context


class _Connection(asyncio.Protocol):
    """One connection: takes a request, answers it, takes the next one."""

    def __init__(self, setting: Setting, log: Log, number: int, open_ones: "set[_Connection]") -> None:
        self._site = setting.site
        self._scheme, self._port = setting.scheme, setting.port
        self._log = log
        self._number = number
        self._open_ones = open_ones
        self._buffer = b""
        self._current: tuple[float, Request] | None = None
        self._sent = (0, 0)
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._address = str(transport.get_extra_info("sockname")[0])
        self._open_ones.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._finish(*self._sent)
        self._open_ones.discard(self)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._current is None and not self._transport.is_closing():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                if len(self._buffer) > _LARGEST_HEADER:
                    self._transport.close()
                return
            self._buffer = rest
            self._take(head.decode("latin-1"))

    def _take(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        named = headers.get("host", self._address)
        name = named.rpartition(":")[0] or named
        request = Request(method, target, name, self._address, f"{self._scheme}://{name}:{self._port}", headers)
        self._current = (time.monotonic(), request)
        self._sent = (0, 0)
        answer = self._site(request)
        if answer.after or answer.pieces or answer.never:
            self._task = asyncio.get_running_loop().create_task(self._answer_slowly(request, answer))
        else:
            self._answer(request, answer)

    def _answer(self, request: Request, answer: Answer) -> None:
        if answer.raw is not None:
            self._finish(0, len(answer.raw))
            self._transport.write(answer.raw)
            self._transport.close()
            return
        size = 0 if request.method == "HEAD" else len(answer.body)
        self._finish(answer.status, size)
        self._transport.write(_head(answer, len(answer.body)) + (answer.body if size else b""))

    async def _answer_slowly(self, request: Request, answer: Answer) -> None:
        await asyncio.sleep(answer.after)
        if answer.never:
            await asyncio.Event().wait()  # until the connection is lost
        if answer.pieces is None:
            self._answer(request, answer)
        else:
            self._transport.write(_head(answer, None))
            size = 0
            for piece in answer.pieces():
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self._sent = (answer.status, size := size + len(piece))
                await asyncio.sleep(answer.pause)
                await self._writable.wait()
            self._finish(answer.status, size)
            self._transport.write(b"0\r\n\r\n")
        self._task = None
        self.data_received(b"")  # what came meanwhile

    def _finish(self, status: int, size: int) -> None:
        if self._current is not None:
            began, request = self._current
            self._current = None
            agent = request.headers.get("user-agent", "")
            self._log.append(
                Entry(
                    began, time.monotonic(), request.host, request.address, request.target, agent, status, size,
                    self._number,
                )
            )  # fmt: skip


def _head(answer: Answer, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Unknown')}"]
    if answer.kind:
        lines.append(f"Content-Type: {answer.kind}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    elif answer.status != 304 and not any(name.lower() == "content-length" for name, _ in answer.headers):
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _serve(
    setting: Setting, sockets: list[socket.socket], log: Log, ready: Callable[[], None], ending: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    numbers = iter(range(1 << 62))
    open_ones: set[_Connection] = set()

    def connection() -> _Connection:
        return _Connection(setting, log, next(numbers), open_ones)

    context = setting.context()
    servers = [await loop.create_server(connection, sock=one, ssl=context, backlog=1024) for one in sockets]
    ready()
    try:
        await ending.wait()
    finally:
        for server in servers:
            server.close()
        for one in list(open_ones):
            one.abort()
        await asyncio.sleep(0)  # connections learn that they are lost
        answering = asyncio.all_tasks() - {asyncio.current_task()}
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


class _Addresses:
    """The properties that both servers have."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    @property
    def port(self) -> int:
        """The port, the same on all addresses."""
        return self._setting.port

    def url(self, path: str = "/", number: int = 0) -> str:
        """Return an address on one of the hosts; number 0 is 127.1.0.1."""
        return f"{self.origin(number)}{path}"

    def origin(self, number: int = 0) -> str:
        """Return `scheme://host:port` of one of the hosts."""
        return f"{self._setting.scheme}://{host(number)}:{self.port}"


class Sites(_Addresses):
    """A server in a thread of this process, with an event loop of its own. A context manager.

    Args:
        site: Answers the requests, in the server's thread.
        hosts: How many addresses to listen on, from 127.1.0.1 on. 127.0.0.1 comes on top.
        addresses: More addresses of 127.0.0.0/8.
        authority: Signs certificates for all hosts: https instead of http.
        port: The port; 0 takes a free one.
    """

    def __init__(
        self, site: Site, hosts: int = 1, *, addresses: Iterable[str] = (), authority: trustme.CA | None = None,
        port: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(Setting(site, hosts, list(addresses), port=port))
        self._authority = authority
        self.log = Log()

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            if self._authority:
                self._setting.certificates = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                _certify(self._authority, self._setting)
            ready = threading.Event()
            self._loop = uvloop.new_event_loop()
            self._ending = asyncio.Event()
            sockets = self._setting.sockets()
            main = _serve(self._setting, sockets, self.log, ready.set, self._ending)
            self._thread = threading.Thread(target=self._run, args=(main,), name="sites")
            self._thread.start()
            stack.callback(self._stop)
            if not ready.wait(_DEADLINE):
                raise RuntimeError("the test's web sites did not start")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _run(self, main: "asyncio._CoroutineLike[None]") -> None:
        try:
            self._loop.run_until_complete(main)
        finally:
            self._loop.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_DEADLINE)


class SitesProcess(_Addresses):
    """A server in a separate process; its site must be picklable. A context manager."""

    def __init__(
        self, site: Site, hosts: int = 1, *, addresses: Iterable[str] = (), authority: trustme.CA | None = None
    ) -> None:
        super().__init__(Setting(site, hosts, list(addresses)))
        self._authority = authority

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._authority:
                self._setting.certificates = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                _certify(self._authority, self._setting)
            self._process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.sites"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            stack.callback(self._process.kill)
            self._setting.port = self._ask(self._setting)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> Log:
        """The log, as it is now."""
        entries: list[Entry] = self._ask("log")  # type: ignore[assignment] # its own process's answer
        return Log(entries)

    @property
    def count(self) -> int:
        """How many requests were answered so far."""
        return self._ask("count")

    def clear(self) -> None:
        """Empty the log."""
        self._ask("clear")

    def _ask(self, what: object) -> int:
        asking, telling = self._process.stdin, self._process.stdout
        assert asking is not None
        assert telling is not None
        pickle.dump(what, asking)
        asking.flush()
        return cast("int", pickle.load(telling))  # noqa: S301 - our own child


def _certify(authority: trustme.CA, setting: Setting) -> None:
    """Write a certificate for all hosts, with its key."""
    assert setting.certificates is not None
    addresses = ["127.0.0.1", "localhost", *(host(number) for number in range(setting.hosts)), *setting.addresses]
    certificate = authority.issue_cert(*addresses)
    certificate.private_key_and_cert_chain_pem.write_to_path(setting.certificates / "server.pem")


def _answers(setting: Setting, log: Log, loop: asyncio.AbstractEventLoop, ending: asyncio.Event) -> Iterator[object]:
    yield setting.port
    while True:
        try:
            what = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent
        except EOFError:
            loop.call_soon_threadsafe(ending.set)
            return
        if what == "clear":
            log.clear()
        yield list(log) if what == "log" else len(log)


def _main() -> None:
    setting: Setting = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent
    log = Log()

    async def main() -> None:
        ending = asyncio.Event()

        def talk() -> None:
            for answer in _answers(setting, log, loop, ending):
                pickle.dump(answer, sys.stdout.buffer)
                sys.stdout.buffer.flush()

        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=talk, daemon=True)
        await _serve(setting, setting.sockets(), log, thread.start, ending)

    uvloop.run(main())


if __name__ == "__main__":
    # Under its own name, so that objects pickled here can be unpickled by the parent.
    from tests.support import sites

    sites._main()
