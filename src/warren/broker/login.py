"""Reading a login: PLAIN (RFC 4616) and AMQPLAIN, and where `guest` may come from."""

import ipaddress

from warren.amqp.protocol.tables import decode_table
from warren.exceptions import ProtocolViolation

MECHANISMS = b"PLAIN AMQPLAIN"


def credentials(mechanism: str, response: bytes) -> tuple[str, str] | None:
    """Read user and password from a login's response; None where it is malformed or the mechanism unknown."""
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


def may_come_from(user: str, peer_address: str) -> bool:
    """Whether a user may log in from an address: `guest` only from this machine (RabbitMQ's docs/access-control)."""
    return user != "guest" or _is_loopback(peer_address)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
