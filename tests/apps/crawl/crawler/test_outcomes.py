"""Broken and hostile answers: each has a named outcome."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import brotli
import pycurl
import pytest
import zstandard

from rabbitry.apps.crawl.crawler import curl_handle
from tests.apps.crawl.crawler._fetching import PAGE, Reply, answer, endless, fetching, serving, writes

OK = b"HTTP/1.1 200 OK\r\n"
WORDS = b"".join(b"%d words and words " % number for number in range(10_000))


def encoded(body: bytes, encoding: str) -> bytes:
    return answer(body, "200 OK", f"Content-Encoding: {encoding}")


OUTCOMES: dict[str, tuple[Reply, str, int | None]] = {
    "not-modified": (answer(b"", "304 Not Modified", 'ETag: "two"'), "unchanged", 304),
    "moved": (answer(b"", "301 Moved", "Location: /b"), "redirect", 301),
    "moved-nowhere": (answer(b"", "302 Found"), "bad-answer", None),
    "moved-to-no-address": (answer(b"", "302 Found", "Location: http://[::1"), "bad-answer", None),
    "gone": (answer(b"", "410 Gone"), "client-error", 410),
    "long-error": (answer(b"x" * 200_000, "404 Not Found"), "client-error", 404),
    "endless-error": (writes(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 1_000_000, then_wait=True), "client-error", 404),
    "hanging-error": (writes(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"), "client-error", 404),
    "broken-error": (writes(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "server-error", 500),
    "failed": (answer(b"", "500 Oh No"), "server-error", 500),
    "too-many": (answer(b"", "429 Too Many"), "slow-down", 429),
    "unavailable": (answer(b"", "503 Later"), "slow-down", 503),
    "odd-status": (answer(b"", "999 Odd"), "bad-answer", None),
    "switching": (writes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "bad-answer", None),
    "no-content": (writes(b"HTTP/1.1 204 No Content\r\n\r\n"), "no-content", 204),
    "reset-content": (answer(b"", "205 Reset Content"), "no-content", 205),
    "moved-to-another-scheme": (answer(b"", "301 Moved", "Location: ftp://a.test/"), "redirect", 301),
    "picture": (answer(b"\x89PNG", kind="image/png"), "not-text", None),
    "style": (answer(b"p {}", kind="text/css"), "not-text", None),
    "bytes-without-type": (answer(b"\x00\x01" * 100, kind=None), "not-text", None),
    "said-too-large": (answer(b"x" * 100_001), "too-large", None),
    "endless": (endless, "too-large", None),
    "tiny-chunks": (
        writes(OK + b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 90_000),
        "bad-answer",
        None,
    ),
    "large-gzip": (encoded(gzip.compress(WORDS), "gzip"), "too-large", None),
    "cut-gzip": (encoded(gzip.compress(PAGE)[:-9], "gzip"), "broken-encoding", None),
    "cut-brotli": (encoded(brotli.compress(PAGE)[:-3], "br"), "broken-encoding", None),
    "cut-zstd": (encoded(zstandard.compress(PAGE)[:-3], "zstd"), "broken-encoding", None),
    "lying-gzip": (encoded(PAGE, "gzip"), "broken-encoding", None),
    "lying-deflate": (encoded(PAGE, "deflate"), "broken-encoding", None),
    "lying-brotli": (encoded(PAGE, "br"), "broken-encoding", None),
    "lying-zstd": (encoded(PAGE, "zstd"), "broken-encoding", None),
    "unknown-encoding": (encoded(PAGE, "rot13"), "broken-encoding", None),
    "many-encodings": (encoded(PAGE, "gzip, gzip, gzip, gzip"), "broken-encoding", None),
    "many-headers": (answer(PAGE, "200 OK", *(f"X-{n}: y" for n in range(300))), "header-too-large", None),
    "long-header": (answer(PAGE, "200 OK", "X-Long: " + "y" * 70_000), "header-too-large", None),
    "huge-header": (answer(PAGE, "200 OK", "X-Long: " + "y" * 700_000), "header-too-large", None),
    "endless-hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20_000, "header-too-large", None),
    "endless-trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-T: y\r\n" * 20_000,
        "header-too-large", None,
    ),
    "silent": (writes(), "no-connection", None),
    "ends-early": (writes(OK + b"Content-Length: 5000\r\n\r\n" + PAGE), "no-connection", None),
    "ends-in-chunk": (writes(OK + b"Transfer-Encoding: chunked\r\n\r\nfff\r\nabc"), "no-connection", None),
    "no-http": (writes(b"SSH-2.0-OpenSSH_9.2\r\n"), "bad-answer", None),
    "http-0.9": (writes(PAGE), "bad-answer", None),
    "chunked-garbage": (writes(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc"), "bad-answer", None),
    "negative-length": (writes(OK + b"Content-Length: -5\r\n\r\nabc"), "bad-answer", None),
    "two-lengths": (writes(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), "bad-answer", None),
    "no-header": (writes(OK + b"this is no header\r\n\r\nabc"), "bad-answer", None),
    "zero-in-header": (writes(OK + b"X-Zero: a\x00b\r\n\r\nabc"), "bad-answer", None),
    "odd-version": (writes(b"HTTP/7.3 200 OK\r\n\r\nabc"), "bad-answer", None),
    "unknown-transfer": (writes(OK + b"Transfer-Encoding: rot13\r\n\r\nabc"), "bad-answer", None),
}  # fmt: skip
BOMBS: dict[str, Callable[[], Reply]] = {
    "gzip-bomb": lambda: encoded(gzip.compress(b"0" * 20_000_000), "gzip"),
    "deflate-bomb": lambda: encoded(zlib.compress(b"0" * 20_000_000), "deflate"),
    "brotli-bomb": lambda: encoded(brotli.compress(b"0" * 20_000_000, quality=5), "br"),
    "zstd-bomb": lambda: encoded(zstandard.compress(b"0" * 200_000_000), "zstd"),
    "nested-bomb": lambda: encoded(gzip.compress(gzip.compress(b"0" * 90_000_000)), "gzip, gzip"),
}  # fmt: skip
"""Made where they are used, and not by each process that collects the tests."""


@pytest.mark.parametrize("name", [*OUTCOMES, *BOMBS])
async def test_each_bad_answer_has_a_named_outcome(name: str) -> None:
    reply, wanted, status = OUTCOMES[name] if name in OUTCOMES else (BOMBS[name](), "bomb", None)
    async with serving({"/": reply}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/")
    assert (outcome.outcome, outcome.status) == (wanted, status), outcome
    assert outcome.detail or status
    assert len(outcome.detail) <= 300


# -- time ------------------------------------------------------------------------------------------------


async def test_a_late_answer_is_too_slow() -> None:
    slow = writes(OK + b"Content-Type: text/html\r\n\r\n", then_wait=True)
    async with serving({"/head": writes(then_wait=True), "/body": slow}) as server:
        with fetching() as hand:
            for path in ("/head", "/body"):
                outcome = await hand.outcome(f"http://127.0.0.1:{server.port}{path}", time_limit=1.0)
                assert outcome.outcome == "too-slow"


async def test_a_late_answer_over_a_kept_connection_is_too_slow() -> None:
    async with serving({"/": answer(PAGE), "/slow": writes(then_wait=True)}) as server:
        with fetching() as hand:
            await hand.page(f"http://127.0.0.1:{server.port}/")
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/slow", time_limit=1.0)
    assert outcome.outcome == "too-slow"
    assert server.connections == 1


async def test_answer_slower_than_the_least_speed_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(curl_handle._OPTIONS, pycurl.LOW_SPEED_TIME, 1)
    async with serving({"/": writes(OK + b"", then_wait=True)}) as server:
        with fetching() as hand:
            outcome = await hand.outcome(f"http://127.0.0.1:{server.port}/")
    assert (outcome.outcome, "too slow" in outcome.detail) == ("too-slow", True)


async def test_cancelling_ends_the_request_and_its_connection() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        begun.set()
        try:
            await writer.wait_closed()
        finally:
            ended.set()

    async with serving({"/": wait}) as server:
        with fetching() as hand:
            task = asyncio.create_task(hand.fetch(f"http://127.0.0.1:{server.port}/"))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert hand.room.total == 0
            await hand.outcome(f"http://127.0.0.1:{server.port}/again")
