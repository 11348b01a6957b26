"""Which requests come from another site's page, and which names are this machine's."""

import pytest
from starlette.datastructures import Headers

from rabbitry.runtime.http.origins import KnownHosts, is_from_another_site


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}, False),
        ({"Referer": "http://127.0.0.1:8000/grading/?x#y"}, False),
        ({"Sec-Fetch-Site": "none", "Referer": "https://elsewhere.example/"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "anything"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://127.0.0.1:9000"}, True),
        ({"Referer": "https://evil.example/127.0.0.1:8000"}, True),
        ({"Referer": "http://127.0.0.1:8000.evil.example/"}, True),
        ({"Referer": "data:,x"}, True),
    ],
)
def test_another_site_s_page_is_recognized_by_browser_headers(headers: dict[str, str], expected: bool) -> None:
    assert is_from_another_site(Headers({"Host": "127.0.0.1:8000"} | headers)) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("localhost.:80", True), ("my.Name:8000", True), ("[::1]:8000", True), ("10.0.0.1", True),
        ("evil.example", False), ("", False), ("[::1", False), ("a@evil.example", False), ("localhost.evil", False),
    ],
)  # fmt: skip
def test_hosts_are_literal_addresses_or_given_names(host: str, expected: bool) -> None:
    assert (host in KnownHosts(["MY.name"])) is expected
