"""Sites for `tests.support.sites`: graphs of pages, robots.txt, redirects, sitemaps, bad bodies, and traps."""

import dataclasses
import email.utils
import gzip
import hashlib
import html
import itertools
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, TypeAlias

import brotli
import zstandard

from tests.support.sites import NOT_FOUND, Answer, Request, Site, host

Page: TypeAlias = Answer | str | bytes | Site
"""An answer, an HTML page, or a function that makes one."""

_SYLLABLES: Final = re.findall("..", "bacedifoguhajekilomunaperisotuvawexiyozu")
_PARAGRAPHS: Final = 4000


def page(title: str, links: Iterable[str] = (), text: str = "", head: str = "") -> str:
    """Return a small HTML page."""
    anchors = "\n".join(f'<li><a href="{html.escape(link)}">{html.escape(link[-60:])}</a></li>' for link in links)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>{head}</head>'
        f"<body><h1>{html.escape(title)}</h1><main><p>{text}</p></main><ul>{anchors}</ul></body></html>"
    )


@cache
def _words() -> list[str]:
    chance = random.Random("words")
    return sorted({"".join(chance.choices(_SYLLABLES, k=chance.randint(2, 4))) for _ in range(6000)})


@cache
def _paragraphs() -> list[str]:
    """Return paragraphs of about 560 characters each."""
    chance = random.Random("paragraphs")
    words = _words()

    def sentence() -> str:
        return " ".join(chance.choices(words, k=chance.randint(8, 20))).capitalize() + "."

    return [f"<p>{' '.join(sentence() for _ in range(6))}</p>\n" for _ in range(_PARAGRAPHS)]


def words(seed: str | int, count: int = 120) -> str:
    """Return text that is the same for the same seed, and like no other's."""
    return " ".join(random.Random(seed).choices(_words(), k=count))


def _answer(found: Page, request: Request) -> Answer:
    if callable(found):
        found = found(request)
    return found if isinstance(found, Answer) else Answer(found.encode() if isinstance(found, str) else found)


def routes(pages: Mapping[str, Page], robots: str | None = None) -> Site:
    """Make a site of pages by their target (path and query); everything else is not there (404)."""
    known = dict(pages)
    if robots is not None:
        known["/robots.txt"] = Answer(robots.encode(), kind="text/plain")

    def site(request: Request) -> Answer:
        found = known.get(request.target)
        return NOT_FOUND if found is None else _answer(found, request)

    return site


def by_host(sites: Mapping[str, Site], otherwise: Site | None = None) -> Site:
    """Make one site of one for each host."""

    def site(request: Request) -> Answer:
        found = sites.get(request.host, otherwise)
        return NOT_FOUND if found is None else found(request)

    return site


def with_robots(site: Site, rules: str | Answer) -> Site:
    """Add a robots.txt to a site."""

    def ruled(request: Request) -> Answer:
        if request.target == "/robots.txt":
            return rules if isinstance(rules, Answer) else Answer(rules.encode(), kind="text/plain")
        return site(request)

    return ruled


@dataclass
class Graph:
    """Pages /p/0 to /p/N-1 (`/` is /p/0), each with so many links: a tree, so that /p/0 leads to all, and random ones.

    On several hosts they lie in turns: page n on host n % hosts. size: bytes of a page, about; its text is like no
    other page's. after: seconds until each answer. validators: pages have an ETag and answer 304 to it.
    """

    count: int
    links: int = 10
    size: int = 4000
    hosts: int = 1
    after: float = 0.0
    validators: bool = False
    robots: str | None = None

    def __call__(self, request: Request) -> Answer:
        if request.target == "/robots.txt" and self.robots is not None:
            return Answer(self.robots.encode(), kind="text/plain")
        name = request.target.removeprefix("/p/") if request.target != "/" else "0"
        if not name.isdecimal() or int(name) >= self.count:
            return NOT_FOUND
        tag = f'"{name}"'
        headers = (("ETag", tag),) if self.validators else ()
        if self.validators and request.headers.get("if-none-match") == tag:
            return Answer(status=304, kind="", headers=headers, after=self.after)
        return Answer(self.body(int(name), request), headers=headers, after=self.after)

    def path(self, number: int) -> str:
        """Return a page's path."""
        return f"/p/{number}"

    def leads_to(self, number: int) -> list[int]:
        """Return the pages that one leads to: its children in a tree, then others at random."""
        first = number * self.links + 1
        children = range(first, min(first + self.links, self.count)) if first < self.count else ()
        others = itertools.islice(_numbers(number, self.count), self.links - len(children))
        return [*children, *others]

    def body(self, number: int, request: Request) -> bytes:
        """Return a page's HTML."""
        return _body(self.count, self.links, self.size, self.hosts, number, request.origin)


def _numbers(seed: int, below: int) -> Iterator[int]:
    """Yield pseudo-random numbers without end; much cheaper to start than random.Random."""
    state = (seed * 0x9E3779B97F4A7C15 + 0x1234567) & _MASK
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        yield (state >> 33) % below


_MASK: Final = (1 << 64) - 1


@lru_cache(maxsize=5000)
def _body(count: int, links: int, size: int, hosts: int, number: int, origin: str) -> bytes:
    """Make a page of a graph; those that were made last are kept, so that a benchmark's server is not its limit."""
    scheme, port = origin.partition(":")[0], origin.rpartition(":")[2]
    bases = [f"{scheme}://{host(n)}:{port}" for n in range(hosts)] if hosts > 1 else [""]
    anchors = "".join(
        [
            f'<li class="item"><a href="{bases[one % hosts]}/p/{one}">See page {one} of them</a></li>\n'
            for one in Graph(count, links).leads_to(number)
        ]
    )
    numbers, vocabulary, paragraphs = _numbers(number + 1, 1 << 30), _words(), _paragraphs()
    title = " ".join(vocabulary[next(numbers) % len(vocabulary)] for _ in range(4)).capitalize()
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="description" content="{title}, page {number}"><link rel="stylesheet" href="/style.css">'
        f"</head>\n<body><nav><ul>\n{anchors}</ul></nav>\n<main><h1>{title}</h1>\n"
    ]
    room = size - len(parts[0]) - 40
    while room > 0:
        part = paragraphs[next(numbers) % _PARAGRAPHS]
        parts.append(part if len(part) <= room else f"<p>{part[3 : max(room, 10)]}</p>")
        room -= len(part)
    parts.append(f"</main><footer>{number}</footer></body></html>")
    return "".join(parts).encode()


SITE_A: Final = Graph(count=20_000, links=150, size=58_000)
SITE_B: Final = Graph(count=20_000, links=30, size=26_000)
"""The pages of the benchmarks."""


def circle(length: int) -> Site:
    """Make pages /0 to /N-1 that lead in a circle; `/` leads into it."""
    return routes(
        {"/": page("begin", ["/0"])}
        | {f"/{n}": page(f"page {n}", [f"/{(n + 1) % length}", "/"], words(n)) for n in range(length)}
    )


def redirect(location: str, status: int = 302) -> Answer:
    """Make an answer that leads elsewhere."""
    return Answer(status=status, headers=(("Location", location),))


def slow_down(status: int = 429, retry_after: str | float | None = None) -> Answer:
    """Return an answer that asks the client to slow down; retry_after: a number of seconds, or any header value."""
    return Answer(b"busy", status, headers=() if retry_after is None else (("Retry-After", str(retry_after)),))


def http_date(seconds: float) -> str:
    """Return a date as HTTP writes it."""
    return email.utils.formatdate(seconds, usegmt=True)


def endless(piece: bytes = b"<p>more and more</p>\n" * 400, pause: float = 0.0) -> Answer:
    """Make a page that never ends; with a pause of seconds it is a slow one."""
    return Answer(pieces=lambda: itertools.repeat(piece), pause=pause)


def drop(pause: float = 0.3) -> Answer:
    """Return a page that is sent byte by byte."""
    return endless(b"x", pause)


def endless_links(request: Request) -> Answer:
    """Answer with a page that never ends, and has a new link in each piece."""

    def pieces() -> Iterator[bytes]:
        yield b"<title>endless</title>"
        for number in itertools.count():
            yield b'<a href="/endless/%d">%d</a>' % (number, number) * 20

    return Answer(pieces=pieces)


def bomb(coding: str, size: int = 200_000_000) -> Answer:
    """Make a page that decompresses to `size` zeros: `gzip`, `deflate`, `br` or `zstd`, or `gzip, gzip` twice."""
    return Answer(_bomb(coding, size), headers=(("Content-Encoding", coding),))


@cache
def _bomb(coding: str, size: int) -> bytes:
    body = bytes(size)
    if coding == "br":
        return bytes(brotli.compress(body, quality=1))
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    packed = gzip.compress(body, 6)
    return gzip.compress(packed) if coding == "gzip, gzip" else packed


def encoded(text: str, coding: str, kind: str = "text/html; charset=utf-8") -> Answer:
    """Make a page compressed with `gzip`, `br` or `zstd`."""
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "br": brotli.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    return Answer(pack[coding](text.encode()), kind=kind, headers=(("Content-Encoding", coding),))


BROKEN: Final[dict[str, bytes]] = {
    "empty": b"",
    "nothing-closed": b'<html><body><p>one<p>two<a href="/ok">ok<div><table><tr><td>three',
    "tags-crossed": b'<b><i><a href="/ok">ok</b></i></a><p></b></p></html></body>',
    "no-quotes": b"<a href=/ok class=a>ok</a><a href=>none</a><a href>none</a>",
    "quote-open": b'<a href="/ok">ok</a><a href="/never-closed>x</a><p>lost</p>',
    "nul": b'<p>nul \x00 here</p><a href="/ok">ok</a>',
    "binary": bytes(range(256)) * 40,
    "lying-charset": b'<meta charset="utf-8"><p>caf\xe9 \xff\xfe</p><a href="/ok">ok</a>',
    "unknown-charset": b'<meta charset="no-such-thing"><p>text</p><a href="/ok">ok</a>',
    "deep": b"<div>" * 20_000 + b'<a href="/ok">ok</a>',
    "many-attributes": b"<p " + b" ".join(b"a%d=1" % n for n in range(20_000)) + b'><a href="/ok">ok</a>',
    "comment-open": b'<a href="/ok">ok</a><!-- never closed <a href="/hidden">x</a>',
    "script-open": b'<a href="/ok">ok</a><script>if (a < b) "<a href=/hidden>"',
    "base-elsewhere": b'<base href="::::"><a href="/ok">ok</a>',
    "surrogates": b'<p>\xed\xa0\x80\xed\xbf\xbf</p><a href="/ok">ok</a>',
    "long-link": b'<a href="/' + b"x" * 100_000 + b'">long</a><a href="/ok">ok</a>',
    "bad-links": b'<a href="http://[::1">a</a><a href="http://a b/">b</a><a href="javascript:void(0)">c</a>'
    b'<a href="mailto:a@b">d</a><a href="http://user:pass@/">e</a><a href="//">f</a><a href="/ok">ok</a>',
}
"""Bodies of broken pages by name. Each but `empty` and `binary` leads to /ok for a parser of HTML 5."""


def broken_html() -> Site:
    """Make a site with all broken pages, under /broken/NAME; `/` leads to them."""
    pages: dict[str, Page] = {"/": page("all that is broken", [f"/broken/{name}" for name in BROKEN])}
    pages |= {f"/broken/{name}": body for name, body in BROKEN.items()}
    return routes(pages | {"/ok": page("ok", (), words("ok"))})


def sitemap(urls: Iterable[str], modified: str | None = None) -> Answer:
    """Make a sitemap; modified: the lastmod of all."""
    last = f"<lastmod>{modified}</lastmod>" if modified else ""
    entries = "".join(f"<url><loc>{html.escape(url)}</loc>{last}</url>\n" for url in urls)
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{_SITEMAPS}">\n{entries}</urlset>'
    return Answer(text.encode(), kind="application/xml")


def sitemap_index(urls: Iterable[str]) -> Answer:
    """Make an index of sitemaps."""
    entries = "".join(f"<sitemap><loc>{html.escape(url)}</loc></sitemap>\n" for url in urls)
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<sitemapindex xmlns="{_SITEMAPS}">\n{entries}</sitemapindex>'
    return Answer(text.encode(), kind="application/xml")


_SITEMAPS: Final = "http://www.sitemaps.org/schemas/sitemap/0.9"


def with_validators(site: Site, modified: float | None = None) -> Site:
    """Add an ETag to the pages of a site (or, if `modified` is set, Last-Modified), and answer 304 to it."""

    def checked(request: Request) -> Answer:
        answer = site(request)
        if answer.status != 200 or answer.pieces or answer.raw is not None:
            return answer
        if modified is None:
            header = ("ETag", f'"{hashlib.sha256(answer.body).hexdigest()[:16]}"')
            same = request.headers.get("if-none-match") == header[1]
        else:
            header = ("Last-Modified", http_date(modified))
            same = request.headers.get("if-modified-since") == header[1]
        if same:
            return Answer(status=304, kind="", headers=(header,))
        return dataclasses.replace(answer, headers=(*answer.headers, header))

    return checked


# Traps. Each has its begin at /KIND/, goes on for ever, and brings nothing new.


def _same(title: str, links: Iterable[str]) -> Answer:
    return Answer(page(title, links, words("the same on all pages of a trap", 200)).encode())


def calendar(request: Request) -> Answer:
    """Answer with a page for any month, empty, that leads to the next, the one before, and those of other years."""
    parts = request.path.strip("/").split("/")
    year, month = (int(parts[1]), int(parts[2])) if len(parts) == 3 and parts[2].isdecimal() else (2026, 1)
    after, before = (year + month // 12, month % 12 + 1), (year - (month == 1), (month - 2) % 12 + 1)
    days = [f"/calendar/{year}/{month}?day={day}" for day in range(1, 29)]
    months = [f"/calendar/{y}/{m}" for y, m in (after, before, (year + 1, month), (year - 1, month))]
    return _same(f"Nothing happens in {month}/{year}", [*months, *days])


def facets(request: Request) -> Answer:
    """Answer with a list of the same goods, filtered and sorted by each combination of a query's fields."""
    chosen = dict(part.split("=", 1) for part in request.query.split("&") if "=" in part)
    links = []
    for name, values in {"color": 9, "size": 9, "brand": 9, "sort": 9, "page": 50}.items():
        for value in range(values):
            query = "&".join(f"{key}={one}" for key, one in (chosen | {name: str(value)}).items())
            links.append(f"/facets/?{query}")
    return _same("Goods", links)


def sessions(request: Request) -> Answer:
    """Answer with one of five pages, in which each link has another session id."""
    number = int.from_bytes(hashlib.sha256(request.target.encode()).digest()[:4], "big")
    links = [f"/sessions/{n % 5}?sid={number + n:x}" for n in range(20)]
    return _same("Welcome", links)


def growing(request: Request) -> Answer:
    """Answer any path with a page whose relative links make it longer."""
    return _same("Deeper", [f"{request.path.rstrip('/')}/{name}" for name in ("more", "about", "more/about")])


def soft_404(request: Request) -> Answer:
    """Answer any path with 200, an apology, and links to others that are not there either."""
    number = int.from_bytes(hashlib.sha256(request.target.encode()).digest()[:4], "big")
    return _same("We are sorry", [f"/soft/{number + n:x}.html" for n in range(10)])


TRAPS: Final[dict[str, Site]] = {
    "calendar": calendar,
    "facets": facets,
    "sessions": sessions,
    "growing": growing,
    "soft": soft_404,
}


@dataclass
class Trapped:
    """A site of `real` pages, /p/0 to /p/N-1, each of which leads into every trap too."""

    real: int
    links: int = 5

    def __call__(self, request: Request) -> Answer:
        kind = request.path.strip("/").partition("/")[0]
        if kind in TRAPS:
            return TRAPS[kind](request)
        answer = Graph(self.real, self.links)(request)
        begins = "".join(f'<a href="/{name}/">{name}</a>' for name in TRAPS)
        return dataclasses.replace(answer, body=answer.body.replace(b"</main>", f"{begins}</main>".encode()))
