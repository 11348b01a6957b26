"""The CPU time of a page in the libraries and the kernel alone: bare loops without any code of Rabbitry.

A crawl whose crawler, broker, processor and keeper are separate processes has to fetch a page, compress it, carry it
over three connections, decompress and parse it, carry its links over two, and store it. The difference between the sum
of these and a page's cost in `beside` is the cost of everything in Python: AMQP, workers, and decisions. Links are
joined to addresses once and then known, as most links of a site are.
"""

import contextlib
import dataclasses
import io
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Final

import ada_url
import msgspec
import pycurl
import zstandard
from selectolax.lexbor import LexborHTMLParser
from tests.support.pages import SITE_A, SITE_B
from tests.support.sites import SitesProcess

from benchmarks.crawl_parts import Row

_HOSTS: Final = 8
_PAGES: Final = 400
_ROUNDS: Final = 5
_COMMIT: Final = 50
"""Pages of one transaction: as many as a keeper has in a fast crawl."""
_TABLES: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE addresses (id INTEGER PRIMARY KEY, url TEXT, state INTEGER);
CREATE TABLE pages (id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE documents (id INTEGER PRIMARY KEY, title TEXT, data TEXT);
"""


_joined: Final[dict[str, str]] = {}
"""The addresses of links. The sites' links are absolute, so that they do not depend on a page."""


class _Read(msgspec.Struct, array_like=True):
    """The parts of a page that a crawl of links only needs."""

    url: str
    title: str
    links: list[str]


def floor(share: float) -> list[Row]:
    """Measure each step for a page of sites A and B."""
    rows: list[Row] = []
    for name, site in (("A", SITE_A), ("B", SITE_B)):
        with SitesProcess(dataclasses.replace(site, hosts=_HOSTS), _HOSTS) as sites:
            # In the order of the tree, so that no page is requested twice and each is on another host than the last.
            urls = [sites.url(f"/p/{number}", number % _HOSTS) for number in range(max(100, int(_PAGES * share)))]
            costs = _costs(urls)
        steps = ", ".join(f"{step} {cost:.3f}" for step, cost in costs.items())
        rows.append(Row(f"{name}: libraries and kernel alone, CPU a page, ms", f"{sum(costs.values()):.2f}"))
        rows.append(Row("… of these", steps))
    return rows


def _costs(urls: list[str]) -> dict[str, float]:
    """Return the milliseconds of CPU for each step of a page, the least of several rounds."""
    costs: dict[str, float] = {}

    def timed(step: str, work: Callable[[], list[bytes]]) -> list[bytes]:
        for _ in range(_ROUNDS):
            began = time.process_time()
            made = work()
            costs[step] = min(costs.get(step, 1e9), (time.process_time() - began) * 1000 / len(urls))
        return made

    with _Curl() as curl:
        curl.fetch(urls)  # connects, and fills the server's cache
        pages = timed("fetch", lambda: curl.fetch(urls))
    compress = zstandard.ZstdCompressor(level=1).compress
    packed = timed("compress", lambda: [compress(page) for page in pages])
    with _pair() as (one, other):
        timed("carry the page three times", lambda: _carried(packed, one, other, 3))
        read = timed("decompress, parse, find the links", lambda: _read(packed, urls))
        timed("carry the links twice", lambda: _carried(read, one, other, 2))
    timed("store", lambda: _store(packed, read))
    return costs


class _Curl:
    """A curl handle that keeps its connections. A context manager."""

    def __init__(self) -> None:
        self._curl = pycurl.Curl()

    def fetch(self, urls: list[str]) -> list[bytes]:
        """Fetch pages one after the other."""
        pages = []
        for url in urls:
            page = io.BytesIO()
            self._curl.setopt(pycurl.URL, url)
            self._curl.setopt(pycurl.WRITEDATA, page)
            self._curl.perform()
            pages.append(page.getvalue())
        return pages

    def __enter__(self) -> "_Curl":
        return self

    def __exit__(self, *_: object) -> None:
        self._curl.close()


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a TCP connection on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        with one, other:
            yield one, other


def _carried(bodies: list[bytes], one: socket.socket, other: socket.socket, times: int) -> list[bytes]:
    """Send each body over the connection, and receive it again."""
    room = bytearray(1 << 18)
    for body in bodies:
        for _ in range(times):
            one.sendall(body)
            left = len(body)
            while left:
                left -= other.recv_into(room, left)
    return bodies


def _read(packed: list[bytes], urls: list[str]) -> list[bytes]:
    """Return the title and the links of each page, encoded."""
    decompress = zstandard.ZstdDecompressor().decompress
    documents = []
    for body, url in zip(packed, urls, strict=True):
        nodes = LexborHTMLParser(decompress(body).decode()).css("title, a[href]")
        links = [_joined.get(link) or _join(url, link) for node in nodes[1:] if (link := node.attributes["href"])]
        documents.append(msgspec.json.encode(_Read(url, nodes[0].text(), list(dict.fromkeys(links)))))
    return documents


def _join(url: str, link: str) -> str:
    _joined[link] = joined = ada_url.join_url(url, link)
    return joined


def _store(packed: list[bytes], read: list[bytes]) -> list[bytes]:
    """Store each page, its document, and the address that it led to on average; mark its own as fetched."""
    decode = msgspec.json.Decoder(_Read).decode
    known: set[str] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(sqlite3.connect(f"{folder}/floor.db")) as connection,
    ):
        connection.executescript(_TABLES)
        for first in range(0, len(read), _COMMIT):
            some = [(number, decode(document)) for number, document in enumerate(read[first : first + _COMMIT], first)]
            for _, document in some:
                known.update(document.links)
            new = [(number, document.url) for number, document in some]
            bodies = [(number, packed[number]) for number, _ in some]
            texts = [(number, document.title, document.url) for number, document in some]
            with connection:
                connection.executemany("INSERT INTO addresses VALUES (?, ?, 0)", new)
                connection.executemany("INSERT INTO pages VALUES (?, ?)", bodies)
                connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", texts)
                connection.executemany("UPDATE addresses SET state = 1 WHERE id = ?", [(one,) for one, _ in some])
    return read
