"""Fetching one address: pages, and each other outcome."""

from __future__ import annotations

import asyncio
import gzip
import random
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import brotli
import pytest
import trustme
import zstandard

from rabbitry.apps.crawl.crawler.bodies import HEAD, STREAMED, BodyReader
from rabbitry.apps.crawl.crawler.budgets import Bandwidth
from rabbitry.apps.crawl.crawler.decoding import encodings_of
from rabbitry.apps.crawl.crawler.fetching import Page
from tests.apps.crawl.crawler._fetching import PAGE, Reply, answer, endless, fetching, serving, writes
from tests.apps.crawl.crawler._http2 import serving_http2


def unpacked(body: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(body)


# -- pages -----------------------------------------------------------------------------------------------


async def test_a_page_is_compressed_and_has_its_servers_headers() -> None:
    reply = answer(PAGE, "200 OK", 'ETag: "one"', "X-Robots-Tag: noindex", "Set-Cookie: a=b", "X-Robots-Tag: nofollow")
    async with serving({"/a?b=c": reply}) as server:
        with fetching() as hand:
            page = await hand.page(f"http://127.0.0.1:{server.port}/a?b=c#part")
    assert unpacked(page.body) == PAGE
    assert (page.status, page.size, page.content_type) == (200, len(PAGE), "text/html")
    assert page.final_url == f"http://127.0.0.1:{server.port}/a?b=c"
    assert page.headers == {"content-type": "text/html", "etag": '"one"', "x-robots-tag": "noindex\nnofollow"}
    assert page.wire > len(PAGE)
    assert abs(page.fetched_at - time.time()) < 60


async def test_request_names_the_crawler_and_its_contact_and_carries_no_cookie() -> None:
    async with serving({"/": answer(PAGE, "200 OK", "Set-Cookie: a=b")}) as server:
        with fetching() as hand:
            url = f"http://127.0.0.1:{server.port}/"
            await hand.page(url, contact="me@a.example\r\nX-Evil: (yes)")
            await hand.page(url)
    assert server.headers(0)["user-agent"] == "rabbitry/9.9 (+me@a.exampleX-Evil: yes)"
    assert server.headers(1)["user-agent"] == "rabbitry/9.9"
    assert set(server.headers(1)) == {"host", "user-agent", "accept", "accept-encoding"}


async def test_the_connection_is_kept_after_a_chunked_error() -> None:
    chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n0\r\n\r\n"
    async with serving({"/a": chunked, "/b": answer(PAGE)}) as server:
        with fetching() as hand:
            for path in ("/a", "/a", "/b"):
                await hand.fetch(f"http://127.0.0.1:{server.port}{path}")
    assert server.connections == 1


async def test_connection_is_kept() -> None:
    replies = {
        "/": answer(PAGE),
        "/moved": answer(b"elsewhere", "301 Moved", "Location: /"),
        "/gone": answer(b"", "410 Gone"),
    }
    async with serving(replies) as server:
        with fetching() as hand:
            for path in ("/", "/moved", "/gone", "/", "/none"):
                await hand.fetch(f"http://127.0.0.1:{server.port}{path}")
    assert len(server.asked) == 5
    assert server.connections == 1


ENCODED = {
    "gzip": gzip.compress(PAGE),
    "x-gzip": gzip.compress(PAGE[:100]) + gzip.compress(PAGE[100:]),
    "GZIP": gzip.compress(PAGE) + b"rubbish behind",
    "deflate": zlib.compress(PAGE),
    "br": brotli.compress(PAGE),
    "zstd": zstandard.compress(PAGE[:500]) + zstandard.compress(PAGE[500:]),
    "identity": PAGE,
    "": PAGE,
    "gzip, br": brotli.compress(gzip.compress(PAGE)),
    "identity, deflate": zlib.compress(PAGE)[2:-4],
}


@pytest.mark.parametrize("encoding", ENCODED)
async def test_content_encodings_are_decoded(encoding: str) -> None:
    async with serving({"/": answer(ENCODED[encoding], "200 OK", f"Content-Encoding: {encoding}")}) as server:
        with fetching() as hand:
            page = await hand.page(f"http://127.0.0.1:{server.port}/")
    assert unpacked(page.body) == PAGE
    assert page.size == len(PAGE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity"])
async def test_a_large_page_is_unchanged(encoding: str) -> None:
    whole = b"".join(b"%d words " % number for number in range(200_000))
    body = {
        "gzip": lambda: gzip.compress(whole),
        "deflate": lambda: zlib.compress(whole),
        "br": lambda: bytes(brotli.compress(whole, quality=3)),
        "zstd": lambda: zstandard.compress(whole),
        "identity": lambda: whole,
    }[encoding]()
    async with serving({"/": answer(body, "200 OK", f"Content-Encoding: {encoding}")}) as server:
        with fetching() as hand:
            page = await hand.page(f"http://127.0.0.1:{server.port}/", largest=len(whole))
            plain = await hand.outcome(f"http://127.0.0.1:{server.port}/", largest=len(whole) - 1)
    assert unpacked(page.body) == whole
    assert page.size == len(whole)
    assert plain.outcome == "too-large"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_small_chunks_make_the_same_page_and_few_objects(encoding: str) -> None:
    whole = random.Random(1).randbytes(STREAMED + 100_000)
    body = gzip.compress(whole) if encoding == "gzip" else whole
    reader = BodyReader(encodings_of(encoding), len(body))
    tracemalloc.start()
    try:
        for start in range(0, len(body), 20):
            reader.take(body[start : start + 20])
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 1.5 * len(body)
    finished = await reader.finish(asyncio.Semaphore())
    assert unpacked(finished.data) == whole
    assert (finished.size, finished.head) == (len(whole), whole[:HEAD])


async def test_plain_page_is_not_compressed() -> None:
    async with serving({"/": answer(gzip.compress(PAGE), "200 OK", "Content-Encoding: gzip")}) as server:
        with fetching(is_packing=False) as hand:
            assert (await hand.page(f"http://127.0.0.1:{server.port}/")).body == PAGE


WHOLE: dict[str, Reply] = {
    "no-length": writes(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE),
    "http-1.0": writes(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n", PAGE),
    "chunked": answer(b"", kind="text/html").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"%x\r\n%b\r\n0\r\nX-Trailer: yes\r\n\r\n" % (len(PAGE), PAGE),
    "early-hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Type: image/png\r\n\r\n" + answer(PAGE),
    "without-content-type": answer(PAGE, kind=None),
    "xml": answer(PAGE, kind="application/rss+xml; charset=utf-8"),
    "plain-text": answer(PAGE, kind="Text/Plain"),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_odd_but_whole_answer_is_a_page(name: str) -> None:
    async with serving({"/": WHOLE[name]}) as server:
        with fetching() as hand:
            assert unpacked((await hand.page(f"http://127.0.0.1:{server.port}/")).body) == PAGE


async def test_empty_page_is_a_page() -> None:
    async with serving({"/": answer(b"")}) as server:
        with fetching() as hand:
            assert unpacked((await hand.page(f"http://127.0.0.1:{server.port}/")).body) == b""


async def test_sitemap_may_be_larger_and_of_any_type() -> None:
    body = gzip.compress(b"<urlset>" + b"<url>" * 100_000)
    async with serving({"/map.gz": answer(body, kind="application/gzip")}) as server:
        with fetching() as hand:
            page = await hand.page(f"http://127.0.0.1:{server.port}/map.gz", "sitemap", largest=100)
    assert unpacked(page.body) == body
    assert page.purpose == "sitemap"


# -- conditional requests and waits ----------------------------------------------------------------------


async def test_a_conditional_request_carries_the_last_validators() -> None:
    reply = answer(b"", "304 Not Modified", 'ETag: "two"', "Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT")
    async with serving({"/": reply}) as server:
        with fetching() as hand:
            url = f"http://127.0.0.1:{server.port}/"
            outcome = await hand.outcome(url, etag='W/"one"', modified="Fri, 20 Nov 2026 10:00:00 GMT")
            await hand.outcome(url, etag='"a"\r\nX-Evil: yes', modified="\n")
    assert server.headers(0)["if-none-match"] == 'W/"one"'
    assert server.headers(0)["if-modified-since"] == "Fri, 20 Nov 2026 10:00:00 GMT"
    assert not {"if-none-match", "if-modified-since", "x-evil"} & set(server.headers(1))
    assert (outcome.outcome, outcome.etag, outcome.modified) == ("unchanged", '"two"', "Sat, 21 Nov 2026 10:00:00 GMT")


@pytest.mark.parametrize("status", ["429 Too Many", "503 Later"])
async def test_an_outcome_has_the_servers_retry_after(status: str) -> None:
    date = formatdate(time.time() + 100, usegmt=True)
    replies = {"/s": answer(b"", status, "Retry-After: 7"), "/d": answer(b"", status, f"Retry-After: {date}")}
    async with serving(replies) as server:
        with fetching() as hand:
            seconds = await hand.outcome(f"http://127.0.0.1:{server.port}/s")
            until = await hand.outcome(f"http://127.0.0.1:{server.port}/d")
    assert (seconds.outcome, seconds.retry_after) == ("slow-down", 7.0)
    assert until.retry_after is not None
    assert 30 < until.retry_after <= 100


# -- robots.txt ------------------------------------------------------------------------------------------


async def test_robots_txt_is_in_its_outcome() -> None:
    reply = answer(b"\xef\xbb\xbfUser-agent: *\nDisallow: /caf\xe9", kind="text/plain")
    async with serving({"/robots.txt": reply}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert (outcome.outcome, outcome.status) == ("robots", 200)
    assert outcome.body == "User-agent: *\nDisallow: /caf\ufffd"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
async def test_robots_txt_in_utf_16_is_obeyed(codec: str) -> None:
    rules = "User-agent: *\nDisallow: /caf\u00e9\n"
    mark = "\ufeff" if codec == "utf-16-be" else ""
    body = f"{mark}{rules}".encode(codec)
    async with serving({"/robots.txt": answer(body, kind="text/plain")}) as server:
        with fetching() as hand:
            robots = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert (robots.outcome, robots.body) == ("robots", rules)


@pytest.mark.parametrize("encode", [bytes, gzip.compress], ids=["identity", "gzip"])
async def test_robots_is_cut_at_500_kibibytes(encode: Callable[[bytes], bytes]) -> None:
    whole = b"".join(b"Disallow: /%d\n" % number for number in range(100_000))
    encoding = "identity" if encode is bytes else "gzip"
    async with serving({"/robots.txt": answer(encode(whole), "200 OK", f"Content-Encoding: {encoding}")}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert outcome.outcome == "robots"
    assert outcome.body == whole[:512_000].decode()


async def test_endless_robots_is_cut_too() -> None:
    async with serving({"/robots.txt": endless}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert outcome.body is not None
    assert len(outcome.body) == 512_000


async def test_robots_is_followed_over_five_redirects_and_no_further() -> None:
    hops = {f"/{n}": answer(b"", "302 Found", f"Location: /{n - 1}") for n in range(1, 10)}
    async with serving({**hops, "/0": answer(b"User-agent: *")}) as server:
        with fetching() as hand:
            near = await hand.outcome(f"http://127.0.0.1:{server.port}/5", "robots")
            far = await hand.outcome(f"http://127.0.0.1:{server.port}/6", "robots")
    assert (near.outcome, near.body) == ("robots", "User-agent: *")
    assert (far.outcome, far.location) == ("redirect", f"http://127.0.0.1:{server.port}/0")


@pytest.mark.parametrize(
    ("status", "outcome"), [("404 None", "client-error"), ("403 No", "client-error"), ("500 Oh", "server-error"),
                            ("503 Later", "slow-down"), ("429 Slow", "slow-down")],
)  # fmt: skip
async def test_a_missing_robots_txt_has_its_own_outcome(status: str, outcome: str) -> None:
    async with serving({"/robots.txt": answer(b"no", status)}) as server:
        with fetching() as hand:
            found = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert (found.outcome, found.status) == (outcome, int(status[:3]))


async def test_robots_txt_redirected_to_a_private_network_is_refused() -> None:
    async with serving({}, "127.0.0.2") as secret:
        replies = {"/robots.txt": answer(b"", "301 Moved", f"Location: http://127.0.0.2:{secret.port}/robots.txt")}
        async with serving(replies) as server:
            with fetching(["127.0.0.1"]) as hand:
                outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/robots.txt", "robots")
    assert outcome.outcome == "private"
    assert outcome.detail == "'127.0.0.2' is not a public address: allow it with the crawler's --allow-private"
    assert secret.connections == 0


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> trustme.CA:
    """A certificate authority that this process trusts."""
    made = trustme.CA()
    path = f"{tmp_path}/ca.pem"
    made.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    return made


def context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    return made


async def test_tls_is_verified_and_the_connection_kept(authority: trustme.CA) -> None:
    async with serving({"/": answer(PAGE)}, tls=context(authority, "a.example")) as server:
        with fetching(names={"a.example": [["127.0.0.1"]]}) as hand:
            for _ in range(3):
                await hand.page(f"https://a.example:{server.port}/")
    assert server.connections == 1


@pytest.mark.parametrize("fault", ["name", "authority", "expired"])
async def test_certificate_that_does_not_verify_is_refused(authority: trustme.CA, fault: str) -> None:
    tls = context(authority, "b.example" if fault == "name" else "a.example")
    if fault == "authority":
        tls = context(trustme.CA(), "a.example")
    if fault == "expired":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("a.example", not_after=datetime.now(UTC) - timedelta(days=1)).configure_cert(tls)
    async with serving({"/": answer(PAGE)}, tls=tls) as server:
        with fetching(names={"a.example": [["127.0.0.1"]]}) as hand:
            outcome = await hand.outcome(f"https://a.example:{server.port}/")
    assert outcome.outcome == "bad-certificate"
    assert server.asked == []


async def test_http2_is_spoken_if_the_server_offers_it(authority: trustme.CA) -> None:
    bodies = {"/": PAGE, "/reset": b""}
    async with serving_http2(bodies, context(authority, "a.example")) as server:
        with fetching(names={"a.example": [["127.0.0.1"]]}) as hand:
            base = f"https://a.example:{server.port}"
            page = await hand.page(f"{base}/")
            missing = await hand.outcome(f"{base}/missing")
            reset = await hand.outcome(f"{base}/reset")
            again = await hand.page(f"{base}/")
    assert (page.status, page.headers["etag"], page.size) == (200, '"two"', len(PAGE))
    assert (missing.outcome, missing.status) == ("client-error", 404)
    assert reset.outcome == "bad-answer"
    assert again.body == page.body
    assert server.paths == ["/", "/missing", "/reset", "/"]
    assert server.connections == 1


async def test_port_without_tls_is_no_connection(authority: trustme.CA) -> None:
    async with serving({"/": answer(PAGE)}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"https://127.0.0.1:{server.port}/", time_limit=2.0)
    assert outcome.outcome == "no-connection"


# -- budgets ---------------------------------------------------------------------------------------------


async def test_waiting_for_bandwidth_does_not_count_as_slow() -> None:
    async with serving({"/": answer(b"x" * 90_000)}) as server:
        with fetching(bandwidth=Bandwidth(20_000)) as hand:
            page = await hand.page(f"http://127.0.0.1:{server.port}/", time_limit=2.0)
    assert page.size == 90_000
    assert page.took > 2.0


async def test_bodies_wait_for_memory_and_all_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(range(256)) * 400
    async with serving({"/": answer(body)}) as server:
        with fetching(room=50_000) as hand:
            url = f"http://127.0.0.1:{server.port}/"
            most = 0

            async def one() -> None:
                nonlocal most
                page = await hand.fetch(url, largest=200_000)
                most = max(most, hand.room.total)
                assert isinstance(page, Page)
                hand.room.release(page)

            await asyncio.gather(*(one() for _ in range(10)))
    assert hand.room.total == 0
    assert most < 50_000 + len(body) + 10 * 16_384
