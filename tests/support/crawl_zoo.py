"""Sites with all kinds of good and bad pages, a host for each kind, and the expected outcome of each address."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rabbitry.apps.crawl.crawler.fetching import SITEMAP_LARGEST
from tests.support import pages
from tests.support.pages import Page, page, redirect, routes, words
from tests.support.sites import NOT_FOUND, Answer, Request, Site, host

_PIECE: Final = 100_000
PNG: Final = Answer(b"\x89PNG\r\n\x1a\n" + bytes(100), kind="image/png")


@dataclass
class Zoo:
    """The sites, the start of a crawl, and the expected outcome of each address.

    outcomes: of addresses, by host number and target; several where either is right. never: what must not be asked
    for. elsewhere: outcomes of addresses on no host of ours. slow: hosts that answer until the time limit, or never.
    """

    sites: dict[int, Site] = field(default_factory=dict)
    starts: list[tuple[int, str]] = field(default_factory=list)
    outcomes: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    never: set[tuple[int, str]] = field(default_factory=set)
    elsewhere: dict[str, set[str]] = field(default_factory=dict)
    slow: set[int] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def add(
        self, site: Site, outcomes: dict[str, str], never: tuple[str, ...] = (), starts: tuple[str, ...] = ("/",)
    ) -> int:
        """Add a site on a host of its own. Return the host's number."""
        number = next(self._numbers)
        self.sites[number] = site
        self.starts += [(number, target) for target in starts]
        self.outcomes |= {(number, target): set(outcome.split(" or ")) for target, outcome in outcomes.items()}
        self.never |= {(number, target) for target in never}
        return number

    def site(self) -> Site:
        """Return all of it as one site."""
        return pages.by_host({host(number): site for number, site in self.sites.items()})


def zoo() -> Zoo:
    """Return all kinds of sites."""
    all_of_it = Zoo()
    for add in (_good, _ruled, _redirecting, _bad_bodies, _bad_answers, _busy, _directed, _mapped, _nasty):
        add(all_of_it)
    return all_of_it


def _good(zoo: Zoo) -> None:
    zoo.add(pages.circle(5), dict.fromkeys(["/", *(f"/{n}" for n in range(5))], "document"))
    linked = {"/": page("all", ["/text", "/image", "/none", "/ok#part", "/ok?utm_source=x"], words("all"))}
    known: dict[str, Page] = {
        "/text": Answer(b"plain text, and enough of it to be read as such", kind="text/plain"),
        "/image": PNG,
        "/ok": page("ok", (), words("ok")),
    }
    zoo.add(
        routes(linked | known),
        {"/": "document", "/text": "document", "/image": "not-text", "/none": "client-error", "/ok": "document"},
    )
    encodings: dict[str, Page] = {
        f"/{coding}": pages.encoded(page(coding, (), words(coding)), coding) for coding in ("gzip", "br", "zstd")
    }
    latin = page("latin", (), "déjà vu à la carte " * 20).replace('<meta charset="utf-8">', "").encode("latin-1")
    encodings["/latin"] = Answer(latin, kind="text/html; charset=iso-8859-1")
    zoo.add(
        routes(encodings | {"/": page("encodings", [*encodings], words("encodings"))}),
        dict.fromkeys([*encodings, "/"], "document"),
    )


def _ruled(zoo: Zoo) -> None:
    front = page("front", ["/open", "/private/a", "/private/b"], words("front"))
    known = {"/": front, "/open": page("open", (), words("open")), "/private/a": "secret", "/private/b": "secret"}
    site = routes(known, "User-agent: *\nDisallow: /private/\n")
    zoo.add(
        site,
        {"/": "document", "/open": "document", "/private/a": "disallowed", "/private/b": "disallowed"},
        never=("/private/a", "/private/b"),
    )
    ours = page("front", ["/rabbitry"], words("for all but us"))
    rules = "User-agent: rabbitry\nDisallow: /rabbitry\n\nUser-agent: *\nDisallow: /\n"
    zoo.add(routes({"/": ours, "/rabbitry": "x"}, rules), {"/": "document", "/rabbitry": "disallowed"}, ("/rabbitry",))
    broken = pages.with_robots(routes({"/": front}), Answer(b"broken", 500))
    zoo.add(broken, {"/": "disallowed or queued"}, ("/",))
    forbidden = pages.with_robots(routes({"/": page("open", (), words("401"))}), Answer(b"who are you?", 401))
    zoo.add(forbidden, {"/": "document"})
    silent = pages.with_robots(routes({"/": front}), Answer(raw=b""))
    zoo.add(silent, {"/": "disallowed or queued"}, ("/",))
    # The rules of a robots.txt that is somewhere else hold here.
    moved = pages.with_robots(
        routes(
            {
                "/": front,
                "/open": page("open", (), words("o")),
                "/rules": Answer(b"User-agent: *\nDisallow: /private/", kind="text/plain"),
            }
        ),
        redirect("/rules"),
    )
    zoo.add(moved, {"/": "document", "/open": "document", "/private/a": "disallowed"}, ("/private/a",))


def _redirecting(zoo: Zoo) -> None:
    private = {
        "http://10.0.0.1/": "private",
        "http://169.254.169.254/latest/meta-data/": "private",
        "http://192.168.1.1/": "private",
        "http://[::1]/": "private",
        "http://[::ffff:10.0.0.1]/": "private",
        "http://0x0a000001/": "private",
        "http://0xa.1/x": "private",
        "http://167772161/y": "private",
        "http://012.0.0.1/z": "private",
        "http://10.0.0.1./dot": "private",
        "http://0.0.0.0/": "private",
        "file:///etc/passwd": "bad-scheme",
        "gopher://127.0.0.1/": "bad-scheme",
    }
    moved: dict[str, Page] = {f"/r{number}": redirect(url) for number, url in enumerate(private)}
    known: dict[str, Page] = {
        "/loop": redirect("/loop"),
        "/ping": redirect("/pong", 301),
        "/pong": redirect("/ping", 308),
        "/relative": redirect("target"),
        "/target": page("target", (), words("target")),
        "/nowhere": Answer(status=302),
        "/chain": redirect("/chain1"),
        "/chain1": redirect("/chain2", 307),
        "/chain2": redirect("/target2"),
        "/target2": page("target 2", (), words("target2")),
    }
    front = page("front", [*moved, *known], words("redirects"))
    odd = [target for target, url in zip(moved, private, strict=True) if private[url] == "bad-scheme"]
    outcomes = dict.fromkeys([*moved, *known], "redirect") | dict.fromkeys(odd, "bad-scheme") | {
        "/": "document", "/target": "document", "/target2": "document", "/nowhere": "bad-answer or redirect",
    }  # fmt: skip
    zoo.add(routes({"/": front} | moved | known), outcomes)
    zoo.elsewhere |= {url: {outcome} for url, outcome in private.items()}


def _bad_bodies(zoo: Zoo) -> None:
    broken = {f"/broken/{name}": "document or unreadable or duplicate" for name in pages.BROKEN}
    zoo.add(pages.broken_html(), broken | {"/": "document", "/ok": "document"}, ("/hidden",))
    zoo.add(routes({"/": pages.endless()}), {"/": "too-large"})
    zoo.add(routes({"/": pages.endless_links}), {"/": "too-large"})
    zoo.add(routes({"/": Answer(bytes(30_000_000), kind="text/html")}), {"/": "too-large"})
    for coding in ("gzip", "deflate", "br", "zstd"):
        zoo.add(routes({"/": pages.bomb(coding)}), {"/": "bomb or too-large"})
    zoo.add(routes({"/": pages.bomb("gzip, gzip")}), {"/": "bomb or too-large or broken-encoding"})
    lying = Answer(b"this is no gzip", headers=(("Content-Encoding", "gzip"),))
    unknown = Answer(b"what is this?", headers=(("Content-Encoding", "middle-out"),))
    zoo.add(
        routes({"/": page("encodings", ["/lying", "/unknown"], words("e")), "/lying": lying, "/unknown": unknown}),
        {"/": "document", "/lying": "broken-encoding", "/unknown": "broken-encoding"},
    )


def _bad_answers(zoo: Zoo) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\nhalf"
    answers: dict[str, tuple[Page, str]] = {
        "nonsense": (Answer(raw=b"what?\r\n\r\n"), "bad-answer"),
        "nothing": (Answer(raw=b""), "no-connection"),
        "half": (Answer(raw=half), "no-connection"),
        "long-header": (Answer(b"x", headers=(("X-Long", "x" * 500_000),)), "header-too-large"),
        "many-headers": (Answer(b"x", headers=tuple((f"X-{n}", "x" * 50) for n in range(8000))), "header-too-large"),
        "gone": (Answer(b"gone", 410), "client-error"),
        "failed": (Answer(b"failed", 500), "server-error"),
        "teapot": (Answer(b"teapot", 418), "client-error"),
    }  # fmt: skip
    for answer, outcome in answers.values():
        zoo.add(pages.with_robots(routes({"/": answer}), Answer(status=404)), {"/": outcome})


def _busy(zoo: Zoo) -> None:
    def once_busy(answer: Answer) -> Site:
        asked = itertools.count()

        def site(request: Request) -> Answer:
            if request.target == "/robots.txt":
                return NOT_FOUND
            return answer if next(asked) == 0 else Answer(page("not busy any more", (), words("busy")).encode())

        return site

    zoo.add(once_busy(pages.slow_down(429, 2)), {"/": "document"})
    zoo.add(once_busy(pages.slow_down(503, "3")), {"/": "document"})
    zoo.add(routes({"/": pages.slow_down(429, 86_400)}), {"/": "slow-down"})


def _directed(zoo: Zoo) -> None:
    def marked(name: str, links: list[str], head: str = "") -> str:
        return page(name, links, words(name), head)

    known: dict[str, Page] = {
        "/": marked("front", ["/noindex", "/nofollow", "/none", "/header", "/canonical", "/link"]),
        "/noindex": marked("noindex", ["/a"], '<meta name="robots" content="noindex">'),
        "/nofollow": marked("nofollow", ["/never-1"], '<meta name="robots" content="nofollow">'),
        "/none": marked("none", ["/never-2"], '<meta name="robots" content="none">'),
        "/header": Answer(marked("header", ["/never-3"]).encode(), headers=(("X-Robots-Tag", "noindex, nofollow"),)),
        "/canonical": marked("canonical", [], '<link rel="canonical" href="/real">'),
        "/real": marked("canonical", []),
        "/link": marked("link", []).replace("<ul>", '<ul><a rel="nofollow" href="/never-4">never</a>'),
    }
    known |= {target: marked(target, []) for target in ("/a", "/never-1", "/never-2", "/never-3", "/never-4")}
    zoo.add(
        routes(known),
        {
            "/": "document", "/noindex": "noindex", "/a": "document", "/nofollow": "document", "/none": "noindex",
            "/header": "noindex", "/canonical": "duplicate", "/real": "document", "/link": "document",
        },
        never=("/never-1", "/never-2", "/never-3", "/never-4"),
    )  # fmt: skip


def _mapped(zoo: Zoo) -> None:
    def site(request: Request) -> Answer:
        maps: dict[str, Callable[[], Answer]] = {
            "/robots.txt": lambda: Answer(f"Sitemap: {request.origin}/index.xml\n".encode(), kind="text/plain"),
            "/index.xml": lambda: pages.sitemap_index([f"{request.origin}/map.xml"]),
            "/map.xml": lambda: pages.sitemap(
                [f"{request.origin}/only-{n}" for n in range(5)] + ["http://10.1.2.3/mapped"], "2026-01-02"
            ),
        }
        if request.target in maps:
            return maps[request.target]()
        return Answer(page(request.target, (), words(request.target)).encode())

    zoo.add(site, {"/": "document"} | {f"/only-{n}": "document" for n in range(5)})


def _nasty(zoo: Zoo) -> None:
    no_name = f"http://{'x' * 64}.example/"  # a label has 63 characters at most, so no name server is asked
    blocked = "http://127.0.0.1:25/"  # the port of mail servers
    front = page("front", [no_name, blocked, "/" + "x" * 100_000], words("nasty links"))
    zoo.add(routes({"/": front}), {"/": "document"})
    zoo.elsewhere |= {no_name: {"no-such-host"}, blocked: {"bad-address"}}
    for slow in (pages.drop(), Answer(never=True)):
        zoo.slow.add(zoo.add(pages.with_robots(routes({"/": slow}), Answer(status=404)), {"/": "too-slow"}))
    entry = b"<url><loc>http://127.0.0.1/</loc></url>\n"
    lax = b"<urlset><url><loc>/one?a=1&b=2</loc></url><url><loc>/two</loc></url></urlset>"
    maps: dict[str, tuple[Answer, str]] = {
        "/lax.xml": (Answer(lax, kind="application/xml"), "sitemap"),
        "/bomb.xml.gz": (Answer(gzip.compress(bytes(100_000_000), 1), kind="application/gzip"), "bomb"),
        "/largest.xml": (_largest_sitemap(b"<urlset><url><loc>/three</loc></url>" + entry * 100), "sitemap"),
        "/endless.xml": (pages.endless(b"<urlset>" + entry * 10_000), "too-large"),
        "/broken.xml": (Answer(b"<urlset><url><loc>/one?a=1", kind="application/xml"), "unreadable"),
    }
    pairs = {target: page(target, (), words(target)) for target in ("/", "/one?a=1&b=2", "/two", "/three")}

    def site(request: Request) -> Answer:
        if request.target == "/robots.txt":
            named = "".join(f"Sitemap: {request.origin}{target}\n" for target in maps)
            return Answer(named.encode(), kind="text/plain")
        return maps[request.target][0] if request.target in maps else routes(dict(pairs))(request)

    outcomes = {target: outcome for target, (_, outcome) in maps.items()}
    zoo.add(site, outcomes | dict.fromkeys(pairs, "document"))


def _largest_sitemap(beginning: bytes) -> Answer:
    """Return a sitemap of 50 MB, the most that is read, all but its beginning white space."""
    end = b"</urlset>"
    count, rest = divmod(SITEMAP_LARGEST - len(beginning) - len(end), _PIECE)
    return Answer(pieces=lambda: [beginning, *itertools.repeat(b"\n" * _PIECE, count), b"\n" * rest, end])
