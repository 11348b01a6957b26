"""The IP addresses that a crawler may connect to."""

import pytest

from rabbitry.apps.crawl.crawler.networks import Networks, Verdict
from rabbitry.exceptions import UsageError

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
    "223.255.255.254", "2606:4700::1", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2001:4860::8888",
]  # fmt: skip
REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
    "100::1", "2001::1", "2001:0:53aa:64c::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2a00::5efe:10.0.0.1",
    "2a00::200:5efe:127.0.0.1", "4000::1", "", "localhost", "1.2.3", "0x7f000001", "127.0.0.1 ", "8.8.8.8\n",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_public(address: str) -> None:
    assert Networks().judge(address) is Verdict.PUBLIC


@pytest.mark.parametrize("address", REFUSED)
def test_special_address_is_refused(address: str) -> None:
    assert Networks().judge(address) is Verdict.REFUSED


def test_allowed_network_may_be_reached_and_no_other() -> None:
    networks = Networks(["127.0.0.0/8", " 10.1.2.3 ", "fd00::/8", "192.168.1.7/16"])
    for address in ("127.9.9.9", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.1.2.3", "fd12::1", "192.168.200.1"):
        assert networks.judge(address) is Verdict.ALLOWED
    for address in ("10.1.2.4", "fe80::1", "169.254.169.254", "2002:7f00:1::"):
        assert networks.judge(address) is Verdict.REFUSED
    assert networks.judge("8.8.8.8") is Verdict.PUBLIC


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.0/33", "10.0.0", "example.com/8", "::/200"])
def test_a_malformed_network_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a network"):
        Networks([text])
