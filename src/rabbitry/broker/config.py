"""The settings of an embedded broker."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rabbitry.amqp.protocol.constants import DEFAULT_CHANNEL_MAX, DEFAULT_FRAME_MAX, DEFAULT_HEARTBEAT, FRAME_MIN_SIZE
from rabbitry.broker.compat import RELEASES, Compat, Release
from rabbitry.exceptions import UsageError
from rabbitry.runtime.addresses import is_loopback

GUEST: Final = "guest"
"""The user with the well-known password."""
CONSUMER_TIMEOUT: Final = 1800.0
"""Seconds for an acknowledgement, RabbitMQ's default."""
_LONGEST_NAME: Final = 255
"""Most bytes of a name in AMQP."""
_LARGEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """The settings of an embedded broker.

    The broker takes over the listening sockets passed to it, and closes them.

    Attributes:
        host: The address on which it listens; `localhost` is 127.0.0.1 and ::1.
        port: The AMQP port; 0 takes a free one. `Broker.port` is the actual one.
        listeners: Listening sockets to use instead of `host` and `port`.
        users: Name → password. None creates the user `guest` with the password `guest`, which may log in only from this
            machine; users in the data folder stay as they are.
        vhosts: Names of virtual hosts, in addition to those in the data folder. `Broker.url` names the first one.
        data: The folder for durable exchanges, queues and messages; None keeps everything in memory.
        management_port: The port of the management API on `host`; 0 takes a free one, None serves no API.
        management_listeners: Listening sockets to use instead of `management_port`.
        tls: A server context, with which the broker listens for TLS too.
        tls_port: The AMQP port for TLS; 0 takes a free one.
        tls_listeners: Listening sockets to use instead of `tls_port`.
        heartbeat: Seconds, offered to clients; 0 asks for no heartbeats.
        frame_max: The largest frame offered to clients, in bytes; at least 4,096.
        channel_max: The most channels of a connection, offered to clients.
        max_message_size: The largest body, in bytes; publishing a larger one closes the channel (406). None is the
            release's: 128 MiB, and 16 MiB since 4.0.
        memory_limit: Bytes of memory of this process above which publishers are blocked; None for 40% of the memory of
            the machine or its container.
        disk_free_limit: Bytes of free space for the data folder below which publishers are blocked; None for 50 MB.
        compat: The release of RabbitMQ whose behaviour the broker has: "3.10" (3.10.8) or "4.0" (4.0.5).
        consumer_timeout: Seconds within which a delivery has to be acknowledged; then its channel is closed (406), as
            RabbitMQ does it. None for no limit. Queues may have a limit of their own in 4.0.
        close_timeout: Seconds that clients have to answer the broker's close before they are cut off.

    Raises:
        UsageError: A number is out of range, the release is unknown, there is no virtual host, or other machines can
            reach the address and there is no user but `guest`.
    """

    host: str = "127.0.0.1"
    port: int = 5672
    listeners: Sequence[socket.socket] = ()
    users: Mapping[str, str] | None = field(default=None, repr=False)
    vhosts: Sequence[str] = ("/",)
    data: Path | None = None
    management_port: int | None = None
    management_listeners: Sequence[socket.socket] = ()
    tls: ssl.SSLContext | None = None
    tls_port: int = 5671
    tls_listeners: Sequence[socket.socket] = ()
    heartbeat: int = DEFAULT_HEARTBEAT
    frame_max: int = DEFAULT_FRAME_MAX
    channel_max: int = DEFAULT_CHANNEL_MAX
    max_message_size: int | None = None
    memory_limit: int | None = None
    disk_free_limit: int | None = None
    compat: Compat = "3.10"
    consumer_timeout: float | None = CONSUMER_TIMEOUT
    close_timeout: float = 1.0

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("port", 0, _LARGEST_PORT),
            ("management_port", 0, _LARGEST_PORT),
            ("tls_port", 0, _LARGEST_PORT),
            ("heartbeat", 0, 0xFFFF),
            ("frame_max", FRAME_MIN_SIZE, 0xFFFF_FFFF),
            ("channel_max", 1, 0xFFFF),
            ("max_message_size", 0, math.inf),
            ("memory_limit", 0, math.inf),
            ("disk_free_limit", 0, math.inf),
            ("consumer_timeout", 0, math.inf),
            ("close_timeout", 0, math.inf),
        ):
            value = getattr(self, name)
            wanted = f"at least {lowest}" if highest == math.inf else f"{lowest} to {highest}"
            if not isinstance(value, int | float | None):
                raise UsageError(f"broker setting {name}={value!r} is not a number: use {wanted}")
            if value is not None and not lowest <= value <= highest:
                raise UsageError(f"broker setting {name}={value!r} is out of range: use {wanted}")
        if self.compat not in RELEASES:
            known = " or ".join(repr(name) for name in RELEASES)
            raise UsageError(f"broker setting compat={self.compat!r} is unknown: use {known}")
        if not self.vhosts or isinstance(self.vhosts, str):
            raise UsageError("a broker needs a list of virtual hosts: name one in vhosts, such as '/'")
        for name in self.vhosts:
            if not 0 < len(name.encode(errors="surrogateescape")) <= _LONGEST_NAME:
                raise UsageError(f"a virtual host can't be called {name!r}: use 1 to 255 bytes")
        if self.users is not None and not self.users:
            raise UsageError("a broker needs a user that may log in: name one in users, or leave users out for guest")
        if nobody := [name for name, password in (self.users or {}).items() if not password]:
            raise UsageError(f"the user {nobody[0]!r} can't log in with an empty password: set one")
        addresses = [str(listener.getsockname()[0]) for listener in self.listeners] or [self.host]
        reached = [address for address in addresses if not is_loopback(address)]
        if set(self.users or {GUEST: ""}) == {GUEST} and reached:
            raise UsageError(
                f"a broker on {reached[0] or 'all addresses'} can be reached by others, and the user {GUEST!r} may log "
                "in from this machine only: give it another user and a password"
            )

    @property
    def largest_message(self) -> int:
        """The largest body, in bytes: `max_message_size`, or else the release's."""
        return self.release.max_message_size if self.max_message_size is None else self.max_message_size

    @property
    def release(self) -> Release:
        """The row of the table of releases that `compat` names."""
        return RELEASES[self.compat]
