"""Network addresses: whether they are this machine's own, which ones belong to one peer, and their form in URLs."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Return whether `host` is a literal IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address (with or without a zone) or `localhost`."""
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def network_of(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, since one host usually has a whole /64."""
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
    """Return a host in the form used in URLs: an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
