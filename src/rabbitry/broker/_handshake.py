"""The steps of a client's handshake: login, negotiated limits, and access to the virtual host (section 2.2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import amqp_0_8
from rabbitry.amqp.protocol.constants import FRAME_MIN_SIZE, Reply
from rabbitry.amqp.protocol.methods import ConnectionStart, ConnectionStartOk, ConnectionTuneOk
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import ConnectionRefusal
from rabbitry.broker._login import certificate_name, credentials, may_come_from
from rabbitry.broker._parameters import Parameters
from rabbitry.broker._product import server_properties
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import Access
from rabbitry.broker.compat import Release
from rabbitry.broker.config import GUEST, BrokerConfig


class Counted(Protocol):
    """A connection that counts against the limits of its virtual host and its user."""

    @property
    def vhost(self) -> VirtualHost:
        """The virtual host that it opened."""

    @property
    def user(self) -> str:
        """The name of its user."""

    @property
    def channels(self) -> Sized:
        """The channels that are open."""


def start(driver: Driver, parameters: Parameters, release: Release, *, is_0_8: bool) -> ConnectionStart:
    """Return connection.start for a client; EXTERNAL is offered only if the client has sent a certificate."""
    mechanisms = release.mechanisms + (b"" if certificate_name(driver) is None else b" EXTERNAL")
    properties = server_properties(parameters.cluster_name, release.version)
    if not is_0_8:
        return ConnectionStart(server_properties=properties, mechanisms=mechanisms)
    major, minor = amqp_0_8.VERSION
    # Clients of 0-8 can't read booleans in tables; RabbitMQ sends them an empty table.
    properties = {**properties, "capabilities": {}}
    return ConnectionStart(major, minor, server_properties=properties, mechanisms=mechanisms)


def capabilities_of(client_properties: Table) -> Table:
    """Return the capabilities in a client's properties."""
    capabilities = client_properties.get("capabilities")
    return capabilities if isinstance(capabilities, dict) else {}


def log_in(
    method: ConnectionStartOk, driver: Driver, peer: str, access: Access, release: Release
) -> tuple[str | None, bool]:
    """Return the user name of a login, and whether the user may log in from the address in `peer`.

    The user is None if the response is malformed, or the mechanism unknown.
    """
    address = peer.rpartition(":")[0]
    certified = certificate_name(driver) if method.mechanism == "EXTERNAL" else None
    if certified is not None:
        return certified, certified in access.users and may_come_from(certified, address)
    if method.mechanism == "ANONYMOUS" and b"ANONYMOUS" in release.mechanisms:
        return GUEST, GUEST in access.users and may_come_from(GUEST, address)
    given = credentials(method.mechanism, method.response)
    if given is None:
        return None, False
    return given[0], access.is_password(*given) and may_come_from(given[0], address)


def check_tuned(method: ConnectionTuneOk, config: BrokerConfig) -> None:
    """Check that a client requests no more than it was offered. Raises 530."""
    for name, given, offered, least in (
        ("frame_max", method.frame_max, config.frame_max, FRAME_MIN_SIZE),
        ("channel_max", method.channel_max, config.channel_max, 1),
    ):
        if (offered and not 0 < given <= offered) or 0 < given < least:
            text = f"negotiated {name} = {given} is not in the allowed {least} to {offered}"
            raise ConnectionRefusal(Reply.NOT_ALLOWED, text)


def find_vhost(name: str, user: str, vhosts: Mapping[str, VirtualHost], access: Access) -> VirtualHost:
    """Return the virtual host that a client opens. Raises 530 if it does not exist or the user has no access."""
    vhost = vhosts.get(name)
    if vhost is None:
        raise ConnectionRefusal(Reply.NOT_ALLOWED, f"vhost {name} not found")
    if not access.may_enter(vhost.name, user):
        text = f"access to vhost '{vhost.name}' refused for user '{user}'"
        raise ConnectionRefusal(Reply.NOT_ALLOWED, text)
    return vhost


def check_limits(vhost: VirtualHost, user: str, others: Iterable[Counted], access: Access) -> None:
    """Check the limits of virtual host and user on connections. Raises 530.

    Args:
        vhost: The virtual host that the user wants to enter.
        user: The name of the user.
        others: The connections that have entered a virtual host.
        access: The users, with their limits.
    """
    limit = vhost.limits.get("max-connections", -1)
    limit_of_user = _limit_of_user(user, "max-connections", access)
    if limit < 0 and limit_of_user < 0:
        return  # skip counting: there may be very many others
    known = list(others)
    if 0 <= limit <= sum(other.vhost is vhost for other in known):
        where = f"access to vhost '{vhost.name}' refused for user '{user}'"
        raise ConnectionRefusal(Reply.NOT_ALLOWED, f"{where}: connection limit ({limit}) is reached")
    if 0 <= limit_of_user <= sum(other.user == user for other in known):
        text = f"connection refused for user '{user}': user connection limit ({limit_of_user}) is reached"
        raise ConnectionRefusal(Reply.NOT_ALLOWED, text)


def check_channel_limit(user: str, known: Iterable[Counted], access: Access) -> None:
    """Check the user's limit on channels, across all its connections. Raises 530."""
    limit = _limit_of_user(user, "max-channels", access)
    if limit >= 0 and limit <= sum(len(one.channels) for one in known if one.user == user):
        text = f"number of channels opened for user '{user}' has reached the maximum allowed user limit of ({limit})"
        raise ConnectionRefusal(Reply.NOT_ALLOWED, text)


def _limit_of_user(user: str, name: str, access: Access) -> int:
    known = access.users.get(user)
    return known.limits.get(name, -1) if known is not None else -1
