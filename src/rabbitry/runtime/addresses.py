"""Network addresses: which are this machine's own, which belong to one peer, and how they stand in a URL."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Return whether `host` is a literal IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`: a loopback address, also with a zone, or `localhost`."""
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def network_of(address: str) -> str:
    """Return `address`, or its /64 network for IPv6, since one host usually has all addresses of that."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return address if parsed.is_loopback else str(ipaddress.ip_network((parsed, 64), strict=False))


def in_url(host: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
