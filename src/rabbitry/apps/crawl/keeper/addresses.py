"""Addresses in normal form, their hosts, and the keys under which they are stored."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import ada_url

from rabbitry.apps.crawl.ports import BAD_PORTS
from rabbitry.exceptions import UsageError

LONGEST: Final = 2_000
"""The most bytes of an address."""
_PLAIN: Final = re.compile(
    r"(https?://[a-z0-9.:-]++)/[A-Za-z0-9_~/.,;:@!$&+=()*-]*+(?:\?[A-Za-z0-9_~/.,;:@!$&+=()*-]++)?"
)
"""Matches addresses of which only the origin needs checking, unless a segment begins with a dot."""
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_OWN_PORT: Final = {"http": "80", "https": "443"}
_SESSION_NAMES: Final = re.compile(
    r"(?:jsessionid|phpsessid|aspsessionid[a-z]*|sessionid|session_id|cfid|cftoken|sid)", re.IGNORECASE
)
_SESSION_VALUE: Final = re.compile(r"[0-9A-Za-z_.-]{16,}")
_SESSION_PATH: Final = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/?;]*", re.IGNORECASE)
_NEVER_PUBLIC: Final = ("localhost", "test", "invalid", "example", "local", "internal")


class BadAddress(UsageError):
    """An address can't be fetched. word: its outcome."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class Address(NamedTuple):
    """An address in normal form. host: its name, with the port unless that is the default of http or https."""

    url: str
    host: str
    key: int

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        return origin_of(self.url)


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address in normal form."""
    return url[: url.index("/", 8)]


def parse(text: str) -> Address:
    """Return an address in normal form. Raises BadAddress if it can't be fetched."""
    plain = _PLAIN.fullmatch(text)
    if plain is not None and "/." not in text and len(text) <= LONGEST:
        origin = _origin(plain[1])
        # Most links are in normal form already and are used unchanged.
        if origin is not None:
            host, first = origin
            if "?" not in text and ";" not in text:
                return Address(text, host, first | _low(blake2b(text.encode(), digest_size=6).digest()) & _LOW)
            return Address(text, host, _key(text, host))
    if len(text) > LONGEST or (not text.isascii() and len(text.encode(errors="replace")) > LONGEST):
        raise BadAddress("too-long", f"an address must have at most {LONGEST} bytes: {text[:60]!r}…")
    return _parse(text)


def _parse(text: str) -> Address:
    scheme, colon, _ = text.strip().partition(":")
    if colon and scheme.isalnum() and scheme.lower() not in _OWN_PORT and "." not in scheme:
        raise BadAddress("bad-scheme", f"{scheme[:20]!r} can't be crawled: use http or https")
    try:
        parts = ada_url.parse_url(text, attributes=("protocol", "host", "pathname", "search"))
    except ValueError as error:
        raise BadAddress("bad-address", f"{text[:80]!r} is not an address: write https://host/path") from error
    scheme = parts["protocol"].removesuffix(":")
    if scheme not in _OWN_PORT:
        raise BadAddress("bad-scheme", f"{scheme[:20]!r} can't be crawled: use http or https")
    host = _without_dot(parts["host"])
    if not host or host.startswith(":"):
        raise BadAddress("bad-address", f"{text[:80]!r} names no host")
    if _has_bad_port(host):
        raise BadAddress("bad-address", f"{text[:80]!r} names the port of another protocol, which browsers block")
    rest = _ESCAPE.sub(_escape, parts["pathname"] or "/")
    if len(parts["search"]) > 1:
        rest += _ESCAPE.sub(_escape, parts["search"])
    url = f"{scheme}://{host}{rest}"
    if len(url) > LONGEST:
        raise BadAddress("too-long", f"an address must have at most {LONGEST} bytes: {text[:60]!r}…")
    return Address(url, host, _key(url, host))


@lru_cache(20_000)
def _origin(text: str) -> tuple[str, int] | None:
    """Return the host of an origin and its part of the keys; None unless the origin is in normal form."""
    try:
        host = ada_url.parse_url(f"{text}/", attributes=("host",))["host"]
    except ValueError:
        return None  # the complete check refuses it
    is_normal = text.endswith(f"://{host}") and _without_dot(host) == host and not _has_bad_port(host)
    return (host, _host_key(host)) if host and is_normal else None


def _has_bad_port(host: str) -> bool:
    port = host.rpartition(":")[2]
    return port.isdigit() and int(port) in BAD_PORTS and ":" in host


def _without_dot(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, colon, port = host, "", ""
    return f"{name.rstrip('.')}{colon}{port}"


def _escape(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if letter in _UNRESERVED else found[0].upper()


# -- keys ------------------------------------------------------------------------------------------------

_LOW: Final = (1 << 44) - 1
_low = int.from_bytes


def _key(url: str, host: str) -> int:
    """Return 56 bits: 12 of the host, so that a host's addresses are close on disk, and 44 of the address.

    SQLite stores a number of 56 bits in a byte less than one of 64. Addresses that differ only in a session id or in
    the order of their parameters have the same key.
    """
    if "?" in url or ";" in url:
        url = _without_session(url)
    return _host_key(host) | _low(blake2b(url.encode(), digest_size=6).digest()) & _LOW


@lru_cache(20_000)
def _host_key(host: str) -> int:
    return _low(blake2b(host.encode(), digest_size=2).digest()) >> 4 << 44


def host_key(host: str, text: str) -> int:
    """Return the key of a text that belongs to a host, such as the shape of its addresses.

    The lower bits are of the host, too: many hosts have the same 12 above them.
    """
    return _joined(host, f"{host} {text}")


def long_key(text: str) -> int:
    """Return the key of an address over the size limit: that of its beginning."""
    return _joined("", text[:LONGEST])


def _joined(host: str, text: str) -> int:
    return _host_key(host) | _low(blake2b(text.encode(errors="replace"), digest_size=6).digest()) & _LOW


def _without_session(url: str) -> str:
    path, question, query = url.partition("?")
    if ";" in path:
        path = _SESSION_PATH.sub("", path)
    if not question:
        return path
    kept = sorted((part for part in query.split("&") if not _is_session(part)), key=lambda part: part.partition("=")[0])
    return f"{path}?{'&'.join(kept)}" if kept else path


def _is_session(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return bool(_SESSION_NAMES.fullmatch(name) and _SESSION_VALUE.fullmatch(value))


# -- hosts -----------------------------------------------------------------------------------------------


def host_name(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def may_be_public(host: str) -> bool:
    """Return whether a host may be public, judged by its name."""
    import ipaddress

    name = host_name(host)
    try:
        return ipaddress.ip_address(name.strip("[]")).is_global
    except ValueError:
        return name.rpartition(".")[2] not in _NEVER_PUBLIC
