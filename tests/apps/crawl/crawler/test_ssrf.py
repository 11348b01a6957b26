"""Private networks in every spelling of an address: no connection is made, whether by link, redirect or DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence

import pycurl
import pytest

from rabbitry.apps.crawl.crawler import curl_handle
from rabbitry.apps.crawl.messages import Purpose
from tests.apps.crawl.crawler._fetching import PAGE, Server, answer, fetching, serving

PORT = 1
"""Stands in the corpus for the port of the listening server."""
LITERALS = [
    # dotted, short, decimal, octal, hexadecimal, and mixtures
    "http://127.0.0.1:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/", "http://2130706433:PORT/",
    "http://0x7f000001:PORT/", "http://0x7f.0.0.1:PORT/", "http://0x7f.1:PORT/", "http://0x7F.0x0.0x0.0x1:PORT/",
    "http://017700000001:PORT/", "http://0177.0.0.1:PORT/", "http://0177.0x0.1:PORT/", "http://00000177.0.0.1:PORT/",
    "http://127.000.000.001:PORT/", "http://127.0.0.1.:PORT/", "http://127.1.:PORT/", "http://127.0.0.2:PORT/",
    "http://127.255.255.254:PORT/", "http://0.0.0.0:PORT/", "http://0:PORT/", "http://0x0:PORT/", "http://00:PORT/",
    # user and password, and spellings that look like them
    "http://a.example@127.0.0.1:PORT/", "http://a.example:80@127.0.0.1:PORT/", "http://a%40b:c@127.0.0.1:PORT/",
    "http://a.example#@127.0.0.1:PORT/", "http://127.0.0.1:PORT#@a.example/", "http://127.0.0.1:PORT\\@a.example/",
    "http://user@a.example@127.0.0.1:PORT/", "http://@127.0.0.1:PORT/",
    # other scripts, backslashes, blanks
    "http://１２７.0.0.1:PORT/", "http://127。0。0。1:PORT/", "http://127．0．0．1:PORT/", "http://①②⑦.⓪.⓪.①:PORT/",
    "http://%31%32%37.0.0.1:PORT/", "http://127.0.0.%31:PORT/", "HTTP://127.0.0.1:PORT/", "http:\\\\127.0.0.1:PORT\\",
    "http:127.0.0.1:PORT/", "http:/127.0.0.1:PORT/", "http:////127.0.0.1:PORT/", " http://127.0.0.1:PORT/ ",
    "ht\ntp://127.0.0.1:PORT/", "http://127.0.\t0.1:PORT/", "http://127.0.0.1:PORT/\x00", "http://127.0.0.1:0PORT/",
    # IPv6, and IPv4 in IPv6
    "http://[::1]:PORT/", "http://[::]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[0000::0001]:PORT/",
    "http://[::127.0.0.1]:PORT/", "http://[::ffff:127.0.0.1]:PORT/", "http://[::ffff:7f00:1]:PORT/",
    "http://[0:0:0:0:0:ffff:7f00:0001]:PORT/", "http://[::ffff:0:127.0.0.1]:PORT/", "http://[64:ff9b::7f00:1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/", "http://[64:ff9b:1::7f00:1]:PORT/", "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:7f00:1::1]:PORT/", "http://[fe80::1]:PORT/", "http://[fe80::1%25lo]:PORT/", "http://[fe80::1%lo]:PORT/",
    "http://[fc00::1]:PORT/", "http://[fd00:ec2::254]:PORT/", "http://[ff02::1]:PORT/", "http://[::1%25lo]:PORT/",
    # metadata services and other private networks
    "http://169.254.169.254/latest/meta-data/", "http://[::ffff:a9fe:a9fe]/", "http://0xa9fea9fe/", "http://2852039166/",
    "http://100.100.100.200/", "http://192.0.0.192/", "http://168.63.129.16/", "http://10.0.0.1/", "http://192.168.0.1/",
    "http://172.16.0.1/", "http://100.64.0.1/", "http://198.18.0.1/", "http://224.0.0.1/", "http://255.255.255.255/",
    # names
    "http://localhost:PORT/", "http://LOCALHOST.:PORT/", "http://sub.localhost:PORT/", "http://localtest.example:PORT/",
    "http://ｌｏｃａｌｈｏｓｔ:PORT/", "http://mapped.example:PORT/", "http://meta.example/", "http://all.example:PORT/",
    # other schemes
    "file:///etc/passwd", "gopher://127.0.0.1:PORT/_x", "dict://127.0.0.1:PORT/x", "ftp://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/", "unix:/run/x", "data:text/html,x", "javascript:alert(1)", "//127.0.0.1:PORT/",
    "127.0.0.1:PORT", "", "http://", "http:///", "http://:PORT/", "http://.:PORT/", "http://a..example:PORT/", "http://127.0.0.256:PORT/",
]  # fmt: skip
NAMES: Mapping[str, Sequence[list[str]]] = {
    "localhost": [["127.0.0.1", "::1"]],
    "sub.localhost": [["127.0.0.1"]],
    "localtest.example": [["127.0.0.1"]],
    "mapped.example": [["::ffff:127.0.0.1", "::1"]],
    "meta.example": [["169.254.169.254", "fd00:ec2::254"]],
    "all.example": [["10.0.0.1", "192.168.0.1", "0.0.0.0", "::", "fe80::1%2"]],
    "a.example": [["127.0.0.1"]],
    "empty.example": [[]],
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The family of each socket that the fetcher opens."""
    families: list[int] = []

    class Spy(socket.socket):
        def __init__(self, family: int, kind: int, protocol: int) -> None:
            families.append(family)
            super().__init__(family, kind, protocol)

    monkeypatch.setattr(curl_handle, "socket", Spy)
    return families


@pytest.fixture
async def secret() -> AsyncIterator[Server]:
    """A server that must not be reached, on all addresses of this machine."""
    async with serving({"/": answer(PAGE), "/robots.txt": answer(PAGE)}, "0.0.0.0") as server:
        async with serving(server.replies, "::1", port=server.port):
            yield server


def test_corpus_is_large() -> None:
    assert len(set(LITERALS)) >= 60


@pytest.mark.parametrize("purpose", ["page", "robots", "sitemap"])
async def test_no_spelling_leads_to_a_connection(secret: Server, opened: list[int], purpose: Purpose) -> None:
    with fetching([], NAMES) as hand:
        outcomes = {}
        for literal in LITERALS:
            url = literal.replace("PORT", str(secret.port))
            outcomes[literal] = (await hand.outcome(url, purpose, contact="me@a.example", time_limit=2.0)).outcome
    assert opened == []
    assert secret.connections == 0
    assert set(outcomes.values()) <= {"private", "bad-address", "bad-scheme", "no-such-host"}, outcomes
    assert outcomes["http://127.0.0.1:PORT/"] == outcomes["http://[::ffff:7f00:1]:PORT/"] == "private"
    assert outcomes["http://１２７.0.0.1:PORT/"] == outcomes["http://localhost:PORT/"] == "private"
    assert outcomes["file:///etc/passwd"] == "bad-scheme"
    assert outcomes["http://[fe80::1%25lo]:PORT/"] == "bad-address"


async def test_spy_sees_connections_that_are_allowed(secret: Server, opened: list[int]) -> None:
    with fetching(["127.0.0.0/8"], NAMES) as hand:
        for literal in ("http://0x7f.1:PORT/", "http://localtest.example:PORT/", "http://a:b@127.0.0.1:PORT/"):
            await hand.page(literal.replace("PORT", str(secret.port)))
    assert opened == [socket.AF_INET] * 2  # the third address has the host of the first one
    assert secret.connections == 2
    assert "authorization" not in secret.headers()


async def test_the_socket_check_is_final(secret: Server, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable all earlier checks."""
    with fetching([]) as hand:
        fetcher = hand.fetcher

        async def deceived(*_: object, is_known: bool) -> object:
            return type("Place", (), {"addresses": ["127.0.0.1", "::1"]})()

        monkeypatch.setattr(fetcher, "look_up", deceived)
        for host in ("127.0.0.1", "a.example", "[::1]"):
            outcome = await hand.outcome(f"http://{host}:{secret.port}/", contact="me@a.example")
            assert outcome.outcome == "private"
    assert opened == []


async def test_only_the_public_addresses_of_a_name_are_used() -> None:
    async with serving({"/": answer(PAGE)}, "127.0.0.9") as server, serving({}, "127.0.0.1") as secret:
        with fetching(["127.0.0.9"], {"both.example": [["127.0.0.1", "127.0.0.9", "::1"]]}) as hand:
            await hand.page(f"http://both.example:{server.port}/")
        with fetching(["127.0.0.9"], {"both.example": [["127.0.0.1", "127.0.0.9", "::1"]]}) as hand:
            outcome = await hand.outcome(f"http://both.example:{secret.port}/")
    assert outcome.outcome == "no-connection"
    assert secret.connections == 0


async def test_dns_rebinding_has_no_effect(secret: Server) -> None:
    async with serving({"/": answer(PAGE), "/end": answer(PAGE, "200 OK", "Connection: close")}, "127.0.0.9") as server:
        with fetching(["127.0.0.9"], {"re.example": [["127.0.0.9"], ["127.0.0.1"]]}) as hand:
            url = f"http://re.example:{server.port}"
            await hand.page(f"{url}/end")
            outcome = await hand.outcome(f"{url}/")
            assert outcome.outcome == "private"
            assert outcome.detail.startswith("'re.example' resolves to 127.0.0.1: ")
            assert hand.names.asked == ["re.example", "re.example"]
    assert secret.connections == 0


async def test_redirect_of_a_page_is_never_followed(secret: Server) -> None:
    location = f"Location: http://127.0.0.1:{secret.port}/"
    async with serving({"/": answer(b"", "302 Found", location)}, "127.0.0.9") as server:
        with fetching(["127.0.0.9"]) as hand:
            for purpose in ("page", "sitemap"):
                outcome = await hand.outcome(f"http://127.0.0.9:{server.port}/", purpose)
                assert (outcome.outcome, outcome.location) == ("redirect", location.removeprefix("Location: "))
    assert secret.connections == 0


@pytest.mark.parametrize("to", ["127.0.0.1", "localtest.example", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_robots_does_not_follow_to_a_private_network(secret: Server, to: str) -> None:
    location = f"Location: http://{to}:{secret.port}/robots.txt"
    async with serving({"/robots.txt": answer(b"", "302 Found", location)}, "127.0.0.9") as server:
        with fetching(["127.0.0.9"], NAMES) as hand:
            outcome = await hand.outcome(f"http://127.0.0.9:{server.port}/robots.txt", "robots")
    assert outcome.outcome == "private"
    assert secret.connections == 0


async def test_proxy_and_netrc_of_the_environment_are_ignored(
    secret: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{secret.port}")
    with open(f"{tmp_path}/.netrc", "w") as file:  # noqa: ASYNC230 - nothing else runs
        file.write("machine 127.0.0.9 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with serving({"/": answer(PAGE)}, "127.0.0.9") as server:
        with fetching(["127.0.0.9"]) as hand:
            await hand.page(f"http://127.0.0.9:{server.port}/")
    assert secret.connections == 0
    assert "authorization" not in server.headers()


async def test_alternative_service_and_strict_transport_are_not_heeded(secret: Server) -> None:
    headers = (f'Alt-Svc: http/1.1="127.0.0.1:{secret.port}"; ma=3600', "Strict-Transport-Security: max-age=3600")
    async with serving({"/": answer(PAGE, "200 OK", *headers)}, "127.0.0.9") as server:
        with fetching(["127.0.0.0/8"]) as hand:
            for _ in range(2):
                await hand.page(f"http://127.0.0.9:{server.port}/")
    assert len(server.asked) == 2
    assert secret.connections == 0


async def test_no_public_address_is_requested_without_a_contact(opened: list[int]) -> None:
    with fetching([], {"public.example": [["8.8.8.8", "10.0.0.1"]]}) as hand:
        for url in ("http://public.example/", "http://8.8.8.8/", "http://[2606:4700::1]/"):
            assert (await hand.outcome(url)).outcome == "no-contact"
    assert opened == []


async def test_name_without_an_address_does_not_resolve() -> None:
    with fetching([], NAMES) as hand:
        for host in ("empty.example", "none.example"):
            assert (await hand.outcome(f"http://{host}/")).outcome == "no-such-host"


def test_libcurl_speaks_http_alone() -> None:
    assert curl_handle._OPTIONS[pycurl.PROTOCOLS] == pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
    assert curl_handle._OPTIONS[pycurl.FOLLOWLOCATION] == 0


async def test_lookups_do_not_hold_up_the_loop_or_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from rabbitry.apps.crawl.crawler import resolving

    first = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look_up(host: str) -> tuple[list[str], str]:
        if host == "slow.example":
            asyncio.run_coroutine_threadsafe(first.wait(), loop).result()
        return [host], ""

    monkeypatch.setattr(resolving, "_look_up", look_up)
    resolver = resolving.SystemResolver()
    slow = asyncio.create_task(resolver.addresses("slow.example"))
    assert await resolver.addresses("fast.example") == ["fast.example"]
    assert not slow.done()
    first.set()
    assert await slow == ["slow.example"]
