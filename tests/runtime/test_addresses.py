"""Which addresses are this machine's, which are one peer's, and how they stand in a URL."""

import pytest

from rabbitry.runtime.addresses import in_url, is_address, is_loopback, network_of


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
                           ("::1%lo", True), ("::ffff:127.0.0.1", True), ("::ffff:192.0.2.1", False),
                           ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("testclient", "testclient"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
    ],
)  # fmt: skip
def test_all_addresses_of_a_network_of_ipv6_are_one_peer(address: str, expected: str) -> None:
    assert network_of(address) == expected


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("", False)])
def test_a_name_is_not_an_address(host: str, expected: bool) -> None:
    assert is_address(host) is expected


@pytest.mark.parametrize(("host", "expected"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("a.example", "a.example")])
def test_an_address_of_ipv6_has_brackets_in_a_url(host: str, expected: str) -> None:
    assert in_url(host) == expected
