"""Addresses as they are asked for: one spelling of each host, without what must not be sent."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, NamedTuple

import ada_url

from rabbitry.apps.crawl.crawler.problems import Problem

LONGEST: Final = 100_000
_PORTS: Final = {"http": 80, "https": 443}


class Target(NamedTuple):
    """An address, parsed by the WHATWG's rules: what browsers make of `http://0x7f.1/` is a host like any other.

    url: without user, password, fragment and the dot at the end of a host. host: a name, or an IP address without
    brackets.
    """

    url: str
    scheme: str
    host: str
    port: int

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, so that there is nothing to resolve."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def target_of(address: str) -> Target:
    """Return what to ask for.

    Raises Problem: bad-address, bad-scheme, too-long.
    """
    if len(address) > LONGEST:
        raise Problem("too-long", f"{len(address)} characters")
    try:
        parsed = ada_url.URL(address)
        scheme = parsed.protocol.rstrip(":")
        if scheme not in _PORTS:
            raise Problem("bad-scheme", f"neither http nor https: '{scheme[:40]}'")
        _clean(parsed)
    except (ValueError, UnicodeError) as error:
        raise Problem("bad-address", f"no address: '{address[:200]}'") from error
    host = parsed.hostname.strip("[]")
    if not host or ".." in host or host.startswith("."):
        raise Problem("bad-address", f"no host: '{address[:200]}'")
    return Target(parsed.href, scheme, host, int(parsed.port or _PORTS[scheme]))


def _clean(parsed: ada_url.URL) -> None:
    """Take out what is not sent. Raises ValueError where no host is left."""
    if parsed.username:
        parsed.username = ""
    if parsed.password:
        parsed.password = ""
    if parsed.hash:
        parsed.hash = ""
    if parsed.hostname.endswith("."):
        parsed.hostname = parsed.hostname.rstrip(".")
