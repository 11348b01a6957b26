"""Reading a login: PLAIN (RFC 4616), AMQPLAIN and EXTERNAL, and the addresses from which `guest` may log in."""

from __future__ import annotations

import ssl
from typing import Final, cast

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol.tables import decode_table
from rabbitry.broker.config import GUEST
from rabbitry.exceptions import ProtocolViolation
from rabbitry.runtime.addresses import is_loopback

Name = tuple[tuple[tuple[str, str], ...], ...]
"""A certificate's subject as ssl represents it: groups of (name, value)."""


def credentials(mechanism: str, response: bytes) -> tuple[str, str] | None:
    """Return user and password from a login's response; None if it is malformed or the mechanism unknown."""
    if mechanism == "PLAIN":
        parts = response.split(b"\0")
        if len(parts) != 3:
            return None
        return parts[1].decode(errors="replace"), parts[2].decode(errors="replace")
    if mechanism == "AMQPLAIN":
        try:
            table, _ = decode_table(len(response).to_bytes(4, "big") + response)
        except ProtocolViolation:
            return None
        user, password = table.get("LOGIN"), table.get("PASSWORD")
        return (user, password) if isinstance(user, str) and isinstance(password, str) else None
    return None


def certificate_name(driver: Driver) -> str | None:
    """Return the distinguished name of a client's certificate, None if it has sent none.

    EXTERNAL logs in as the user of that name (RabbitMQ's docs/ssl, ssl_cert_login_from = distinguished_name).
    """
    tls = driver.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject):
        return None
    certificate = tls.getpeercert()
    if not certificate:
        return None
    return distinguished_name(cast("Name", certificate["subject"]))  # the type in ssl's documentation


def distinguished_name(subject: Name) -> str:
    """Return a certificate's subject as RabbitMQ writes it: the parts in reverse, as in RFC 4514."""
    groups = ["+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in group) for group in subject]
    return ",".join(reversed(groups))


_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "surname": "SN",
    "givenName": "GIVENNAME",
    "initials": "INITIALS",
    "generationQualifier": "GENERATIONQUALIFIER",
    "title": "TITLE",
    "serialNumber": "SERIALNUMBER",
    "pseudonym": "PSEUDONYM",
    "domainComponent": "DC",
    "emailAddress": "EMAILADDRESS",
    "streetAddress": "STREET",
    "userId": "UID",
}


def _escaped(value: str) -> str:
    """Escape a part of a name (RFC 4514, section 2.4), so that no value can pass for another name's parts."""
    escaped = "".join(f"\\{char}" if char in '"+,;<>\\' else char for char in value)
    if escaped[:1] in (" ", "#"):
        escaped = f"\\{escaped}"
    return f"{escaped[:-1]}\\ " if value[1:].endswith(" ") else escaped


def may_come_from(user: str, peer_address: str) -> bool:
    """Return whether a user may log in from an address; `guest` only from this machine (docs/access-control)."""
    return user != GUEST or is_loopback(peer_address)
