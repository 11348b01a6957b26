"""Addresses in the form in which they are requested."""

import pytest

from rabbitry.apps.crawl.crawler.targets import LONGEST, Targets, target_of
from rabbitry.apps.crawl.problems import Problem

ADDRESSES = [
    "http://a.example/", "http://a.example/b?c=d&e=%C3%A9", "http://a.example/b c", "http://a.example/./b",
    "http://a.example/b/../c", "http://a.example/b/%2e%2E/c", "http://a.example/b#part", "http://a.example",
    "http://a.example:80/b", "http://a.example:81/b", "http://A.example/b", "http://a.example./b", "http://é.example/b",
    "http://a.example/é", "http://a.example@b.example/", "http://u:p@a.example/b", "http://a.example.b.example/c",
    "http://a.example\\b", "http://a.example/b\\c", "http://a.example/b\nc", "http://[2001:DB8::1]/", "https://a.example/",
    "http://a.example/.", "http://a.example/.well-known", "http://a.example/b.html", "http://a.example/'\"<>{}|^`",
    "http://a.example/b?c#d", "http://a.example/b?'", "http://a.example/" + "b" * LONGEST, "http://a.example/b\x7f",
]  # fmt: skip


def outcome_of(target: object, address: str) -> object:
    try:
        return target(address)  # type: ignore[operator] # one of the two ways
    except Problem as problem:
        return problem.outcome


@pytest.mark.parametrize(
    "first", ["http://a.example/", "http://a.example/x?y", "http://a.example:81/", "https://a.example/"]
)
def test_the_short_path_gives_the_same_targets(first: str) -> None:
    for address in ADDRESSES:
        targets = Targets()
        targets.target_of(first)
        assert outcome_of(targets.target_of, address) == outcome_of(target_of, address), address


def test_parts_that_are_not_sent_are_removed() -> None:
    target = target_of("http://user:secret@A.Example.:80/b/../c?d#part")
    assert target == ("http://a.example/c?d", "http", "a.example", 80, False)
    assert target_of("https://[::1]/").host == "::1"
    assert target_of("https://[::1]/").port == 443
    assert target_of("https://[::1]/").is_literal
    assert not target_of("https://a.example/").is_literal


@pytest.mark.parametrize("address", ["http://a.example:25/", "https://a.example:6667/", "http://a.example:0/"])
def test_ports_of_other_protocols_are_no_addresses(address: str) -> None:
    with pytest.raises(Problem, match="another protocol") as problem:
        target_of(address)
    assert problem.value.outcome == "bad-address"


@pytest.mark.parametrize("port", [80, 443, 8080, 8443, 6379])
def test_ports_that_web_servers_use_are_asked(port: int) -> None:
    assert target_of(f"http://a.example:{port}/").port == port
