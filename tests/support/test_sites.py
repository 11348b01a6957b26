"""The tests' own web sites, with other people's clients."""

import asyncio
import gzip
import itertools
import socket
import ssl
import time

import brotli
import httpx
import pytest
import trustme
import zstandard

from tests.support.pages import (
    BROKEN,
    TRAPS,
    Graph,
    Trapped,
    bomb,
    by_host,
    circle,
    endless,
    redirect,
    routes,
    with_robots,
    with_validators,
)
from tests.support.sites import Answer, Request, Sites, SitesProcess, host


def test_many_hosts_answer_on_one_port_each_by_its_name() -> None:
    site = by_host({host(n): routes({"/": f"host {n}"}) for n in range(300)})
    with Sites(site, hosts=300) as sites, httpx.Client(timeout=60) as client:
        for number in (0, 249, 250, 299):
            assert client.get(sites.url(number=number)).text == f"host {number}"
        assert [entry.host for entry in sites.log] == ["127.1.0.1", "127.1.0.250", "127.1.1.1", "127.1.1.50"]
        assert client.get(f"http://127.0.0.1:{sites.port}/").status_code == 404


def test_listens_on_no_other_interface() -> None:
    with Sites(routes({})) as sites, socket.socket() as one:
        one.bind(("127.0.0.99", sites.port))  # a socket on 0.0.0.0 would have this one too


def test_the_log_records_each_request() -> None:
    with Sites(routes({"/slow": Answer(b"x", after=0.05)})) as sites, httpx.Client(timeout=60) as client:
        before = time.monotonic()
        for path in ("/slow", "/none?a=b"):
            client.get(sites.url(path), headers={"User-Agent": "me"})
        slow, none = sites.log
    assert before <= slow.began <= slow.ended - 0.049  # uvloop's timers count whole milliseconds
    assert slow.ended <= none.began <= none.ended
    assert (slow.agent, slow.target, slow.status, none.target, none.status) == ("me", "/slow", 200, "/none?a=b", 404)
    assert slow.connection == none.connection
    assert sites.log.gaps() == {"127.1.0.1": [none.began - slow.ended]}


async def test_requests_at_the_same_time_are_a_negative_gap() -> None:
    asked = 0

    def site(request: Request) -> Answer:
        nonlocal asked
        asked += 1
        # The first answer ends when the second request has come.
        return Answer(pieces=lambda: itertools.takewhile(lambda _: asked < 2, itertools.repeat(b"x")), pause=0.01)

    with Sites(site) as sites:
        async with httpx.AsyncClient(timeout=60) as client:
            await asyncio.gather(client.get(sites.url()), client.get(sites.url()))
        assert min(sites.log.gaps()["127.1.0.1"]) < 0


def test_a_page_that_never_ends_is_logged_when_the_client_leaves() -> None:
    with Sites(routes({"/": endless()})) as sites, httpx.Client(timeout=60) as client:
        with client.stream("GET", sites.url()) as answer:
            taken = answer.iter_raw(100_000)
            assert sum(len(next(taken)) for _ in range(30)) == 3_000_000
            assert not sites.log
    [entry] = sites.log
    assert entry.size >= 3_000_000


def test_raw_answers_are_sent_as_they_are() -> None:
    pages = {"/bad": Answer(raw=b"nonsense\r\n\r\n"), "/gone": Answer(raw=b"")}
    with Sites(routes(pages)) as sites, httpx.Client(timeout=60) as client:
        for path in pages:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(sites.url(path))


def test_tls_has_a_certificate_for_each_host() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Sites(circle(2), hosts=2, authority=authority) as sites, httpx.Client(verify=context, timeout=60) as client:
        assert sites.url(number=1).startswith("https://127.1.0.2:")
        assert client.get(sites.url(number=1)).status_code == 200
        with httpx.Client(timeout=60) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get(sites.url())


def test_a_sites_process_serves_and_returns_its_log() -> None:
    with SitesProcess(Graph(50, links=3), hosts=2) as sites, httpx.Client(timeout=60) as client:
        assert client.get(sites.url("/p/49")).status_code == 200
        assert client.get(sites.url("/p/50", 1)).status_code == 404
        assert sites.log.targets() == ["/p/49", "/p/50"]
        sites.clear()
        assert sites.count == 0


@pytest.mark.parametrize("graph", [Graph(10_000, 150), Graph(500, 7, hosts=20), Graph(1, 3)])
def test_all_pages_can_be_reached_from_the_first(graph: Graph) -> None:
    found, new = {0}, [0]
    while new:
        links = graph.leads_to(new.pop())
        assert len(links) == graph.links
        new += [one for one in links if one not in found]
        found.update(links)
    assert found == set(range(graph.count))


def test_pages_have_the_given_size_and_differ() -> None:
    request = Request("GET", "/", "127.1.0.1", "127.1.0.1", "http://127.1.0.1:80", {})
    for links, size in ((150, 58_000), (30, 26_000)):
        graph = Graph(1_000_000, links, size)
        pages = [graph.body(number, request) for number in (0, 1, 999_999)]
        assert all(abs(len(page) - size) < 600 for page in pages)
        assert all(page.count(b"<a href=") == links for page in pages)
        assert pages[0] == graph.body(0, request)
        lines = [set(page.split(b"\n")) for page in pages]
        assert len(lines[0] & lines[1]) < 10


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "br", "zstd"])
def test_bombs_are_small_and_expand(coding: str) -> None:
    answer = bomb(coding, 20_000_000)
    assert len(answer.body) < 50_000
    body = answer.body
    for one in coding.split(", "):
        unpack = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": zstandard.ZstdDecompressor().decompress}
        body = unpack[one](body)
    assert len(body) == 20_000_000


def test_unchanged_pages_answer_304() -> None:
    for site in (
        with_validators(circle(3)), with_validators(circle(3), modified=1e9), Graph(5, 2, validators=True)
    ):  # fmt: skip
        with Sites(site) as sites, httpx.Client(timeout=60) as client:
            first = client.get(sites.url())
            same = {"If-None-Match": first.headers.get("etag", ""),
                    "If-Modified-Since": first.headers.get("last-modified", "")}  # fmt: skip
            assert client.get(sites.url(), headers=same).status_code == 304
            assert client.get(sites.url(), headers={"If-None-Match": '"other"'}).status_code == 200


def test_redirects_and_robots() -> None:
    site = with_robots(routes({"/": redirect("http://10.0.0.1/", 301)}), "User-agent: *\nDisallow: /x\n")
    with Sites(site) as sites, httpx.Client(timeout=60) as client:
        answer = client.get(sites.url())
        assert (answer.status_code, answer.headers["location"]) == (301, "http://10.0.0.1/")
        assert client.get(sites.url("/robots.txt")).text == "User-agent: *\nDisallow: /x\n"


@pytest.mark.parametrize("kind", TRAPS)
def test_a_trap_is_endless(kind: str) -> None:
    with Sites(Trapped(10)) as sites, httpx.Client(timeout=60) as client:
        assert f'href="/{kind}/"' in client.get(sites.url("/p/3")).text
        seen, target = set(), f"/{kind}/"
        for _ in range(20):
            answer = client.get(sites.url(target))
            assert answer.status_code == 200
            assert target not in seen
            seen.add(target)
            links = [part.partition('"')[0].replace("&amp;", "&") for part in answer.text.split('href="')[1:]]
            target = next(link for link in links if link not in seen)


def test_broken_pages_are_served_unchanged() -> None:
    from tests.support.pages import broken_html

    with Sites(broken_html()) as sites, httpx.Client(timeout=60) as client:
        for name, body in BROKEN.items():
            assert client.get(sites.url(f"/broken/{name}")).content == body
