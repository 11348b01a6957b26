"""Broker URLs (hosts, login, virtual host, options), and the default URL if a program passes none.

    amqp://user:password@host:port/vhost,host2:port2…?heartbeat=30&connection_timeout=10000

Spelling and defaults follow RabbitMQ's URI specification and URI query parameters (docs/uri-spec,
docs/uri-query-parameters): everything is optional, and `%2F` in the path is the virtual host `/`. Unlike there, and as
in most clients, a path of `/` alone is the default virtual host too, not the one with the empty name. Several hosts
are separated by commas, after the first host or after the virtual host. Errors show no part of the URL that could
belong to the password.

A worker runs its handlers, and a test harness its block, in a context whose broker is `current`. `entered` does the
same for a whole process. Elsewhere the environment decides (`environment_url`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from rabbitry._fields import Fields
from rabbitry.exceptions import UsageError

DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"
VARIABLE: Final = "RABBITRY_BROKER"
OUTSIDE: Final = "RABBITRY_OUTSIDE_BROKER"
"""Set by the pytest plugin for its run and the programs started there: RABBITRY_BROKER as it was before the run."""
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_PARAMETERS: Final = {
    "heartbeat": 0xFFFF,
    "frame_max": 0xFFFFFFFF,
    "channel_max": 0xFFFF,
    "connection_timeout": 0xFFFFFFFF,
}
"""Query parameter → its highest value, as the wire format allows."""
_TEXT_PARAMETERS: Final = ("cacertfile", "certfile", "keyfile", "verify", "server_name_indication", "auth_mechanism")


class BrokerURL(Fields):
    """A parsed broker URL. Its representations never show the password.

    hosts: (name or address, port) pairs, in the order in which they are tried. heartbeat: seconds, or None for the
    broker's choice. connection_timeout: seconds. cacertfile, certfile, keyfile: paths of PEM files. verify: whether the
    broker's certificate and host name are checked. server_name: the name to check and to send (SNI), instead of the
    host's. external: log in with the client's certificate (EXTERNAL).
    """

    hosts: tuple[tuple[str, int], ...]
    user: str = "guest"
    password: str = "guest"  # noqa: S105 - RabbitMQ's default
    virtual_host: str = "/"
    tls: bool = False
    heartbeat: int | None = None
    frame_max: int | None = None
    channel_max: int | None = None
    connection_timeout: float | None = None
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    server_name: str | None = None
    external: bool = False

    def __repr__(self) -> str:
        """Return the fields without the password."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items() if name != "password")
        return f"BrokerURL({shown})"

    def __str__(self) -> str:
        """Return the URL without user and password, for logs and messages."""
        scheme = "amqps" if self.tls else "amqp"
        names = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        vhost = "" if self.virtual_host == "/" else _quoted(self.virtual_host)
        return f"{scheme}://{names}/{vhost}"


current: Final[ContextVar[BrokerURL | None]] = ContextVar("rabbitry_broker", default=None)
"""The broker of this context."""
_entered: Final[list[BrokerURL]] = []


def environment_url() -> str:
    """Return the URL in RABBITRY_BROKER, or the one of guest on this machine if that is unset or empty.

    Raises UsageError in a pytest run, unless the test has set RABBITRY_BROKER itself: a test that names no broker must
    not reach a real one.
    """
    value = os.environ.get(VARIABLE)
    if value and value != os.environ.get(OUTSIDE):
        return value
    if OUTSIDE in os.environ:
        raise UsageError(
            "no broker is named, and a test uses neither this machine's broker nor the RABBITRY_BROKER that was "
            "set before pytest: run the app in rabbitry.testing.harness, pass a URL (such as rabbitry_broker.url), "
            "or set RABBITRY_BROKER in the test"
        )
    return DEFAULT_URL


@contextmanager
def entered(url: BrokerURL) -> Iterator[None]:
    """Make `url` the broker of this context, and of all code of this process whose context has none.

    A thread starts with an empty context, so the context variable alone would not reach the threads that a test starts.
    """
    before = current.get()
    current.set(url)
    _entered.append(url)
    try:
        yield
    finally:
        _entered.remove(url)
        # Not `reset`: a fixture may be left in a different context from the one it was entered in.
        if current.get() is url:
            current.set(before)


def default_url() -> BrokerURL:
    """Return the default broker. Raises as `environment_url` does."""
    here = current.get() or (_entered[-1] if _entered else None)
    return here if here is not None else parse_url(environment_url())


def parse_url(url: str | None = None) -> BrokerURL:
    """Parse `url`; None means RABBITRY_BROKER, or guest on this machine if that is not set.

    Raises UsageError with the reason, without the password.
    """
    text = url if url is not None else os.environ.get(VARIABLE) or DEFAULT_URL
    if not isinstance(text, str):
        raise UsageError(f"a broker URL must be text, not {type(text).__name__}")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise UsageError("the broker URL must begin with amqp:// or amqps://: amqp://user:password@host:5672/vhost")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    if "@" in path or "@" in query:
        # A password with a bare "/" or "?" would be parsed as host, port and virtual host, and shown as such.
        raise UsageError("broker URL: '@' after the host; write %2F, %3F and %40 for '/', '?' and '@' in a name")
    userinfo, _, first_hosts = authority.rpartition("@")
    vhost, *more_hosts = path.split(",")
    hosts = tuple(_host(item, _PORTS[scheme]) for item in [*first_hosts.split(","), *more_hosts])
    parsed = BrokerURL(hosts=hosts, tls=scheme == "amqps")
    if userinfo:
        user, colon, password = userinfo.partition(":")
        parsed = parsed._replace(user=_unquoted(user))
        if colon:
            parsed = parsed._replace(password=_unquoted(password))
    if slash and vhost:
        parsed = parsed._replace(virtual_host=_unquoted(vhost))
    return _with_query(parsed, query)


# Importing urllib.parse takes a tenth of the client's import time, and most URLs don't need it.


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


def _host(text: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UsageError("broker URL: write an IPv6 address as [address] or [address]:port")
        port = port[1:]
    else:
        name, _, port = text.partition(":")
    host = _unquoted(name) or "127.0.0.1"
    try:
        is_name = b"\0" not in host.encode("idna")  # as the resolver does
    except UnicodeError:
        is_name = False
    if not is_name:
        raise UsageError("broker URL: the host name is invalid")
    if not port:
        return host, default_port
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise UsageError("broker URL: the port must be a number from 1 to 65535")
    return host, int(port)


def _with_query(parsed: BrokerURL, query: str) -> BrokerURL:
    changes: dict[str, int | float | str | bool] = {}
    if not query:
        return parsed
    from urllib.parse import parse_qsl

    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in _TEXT_PARAMETERS:
            changes |= _text_parameter(key, value, tls=parsed.tls)
            continue
        highest = _PARAMETERS.get(key)
        if highest is None:
            raise UsageError(
                f"broker URL: unknown query parameter; known are {', '.join([*_PARAMETERS, *_TEXT_PARAMETERS])}"
            )
        if not value.isascii() or not value.isdigit() or len(value) > 10 or int(value) > highest:
            raise UsageError(f"broker URL: {key} must be a whole number from 0 to {highest}")
        # connection_timeout is in milliseconds, as in RabbitMQ's clients.
        changes[key] = int(value) / 1000 if key == "connection_timeout" else int(value)
    return parsed._replace(**changes)  # type: ignore[arg-type] # each key got its field's type above


def _text_parameter(key: str, value: str, *, tls: bool) -> dict[str, str | bool]:
    if not tls:
        raise UsageError(f"broker URL: {key} is for amqps:// only")
    if not value:
        raise UsageError(f"broker URL: {key} has no value")
    match key, value:
        case "verify", "verify_peer" | "verify_none":
            return {"verify": value == "verify_peer"}
        case "verify", _:
            raise UsageError("broker URL: verify must be verify_peer or verify_none")
        case "auth_mechanism", "external" | "plain":
            return {"external": value == "external"}
        case "auth_mechanism", _:
            raise UsageError("broker URL: auth_mechanism must be external or plain")
        case "server_name_indication", _:
            return {"server_name": value}
    return {key: value}
