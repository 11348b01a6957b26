"""The IP addresses that a crawler may connect to.

Pages are written by strangers. A link may lead to the crawler's own machine, to its network, or to the metadata
service of its cloud, whose answers would then be published. Therefore all networks that the IANA's registries of
special-purpose addresses list as not globally reachable are refused, in each form of an IPv4 address in IPv6.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from rabbitry.exceptions import UsageError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED_4: Final = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host on this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and one cloud's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # one cloud's internal service at a public address
        "169.254.0.0/16",  # link-local, and most clouds' metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_GLOBAL_6: Final = IPv6Network("2000::/3")
_REFUSED_6: Final = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""The upper half of the interface identifier of an address that holds an IPv4 address (RFC 5214, section 6.1)."""


class Verdict(Enum):
    """Whether an address may be connected to."""

    PUBLIC = auto()
    """Public: its owner must be able to contact the crawl's owner."""
    ALLOWED = auto()
    """Allowed by the crawler's owner."""
    REFUSED = auto()


class Networks:
    """Judges IP addresses.

    Args:
        allowed: Networks such as `10.1.0.0/16` or `fd00::/8`, or single addresses, that may be connected to although
            they are private.

    Raises:
        UsageError: One of them is not a network.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = [_network(text) for text in allowed]

    def judge(self, text: str) -> Verdict:
        """Return the verdict on an address in a socket's notation; text that is not an IP address is refused."""
        try:
            address = ip_address(text)
        except ValueError:
            return Verdict.REFUSED
        embedded = _embedded(address)
        if any(address in network or (embedded and embedded in network) for network in self._allowed):
            return Verdict.ALLOWED
        return Verdict.PUBLIC if _is_public(address) else Verdict.REFUSED


def _network(text: str) -> Network:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise UsageError(f"'{text}' is not a network: use e.g. 10.1.0.0/16, or a single IP address") from error


def _embedded(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that receives packets to a mapped or translated IPv6 address, if it is one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_public(address: Address) -> bool:
    if (embedded := _embedded(address)) is not None:
        address = embedded
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_4)
    if address not in _GLOBAL_6 or any(address in network for network in _REFUSED_6):
        return False
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return True
