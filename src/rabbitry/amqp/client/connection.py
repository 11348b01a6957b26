"""A connection to a broker, and `connect`, which creates one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from ssl import SSLContext
from types import TracebackType
from typing import Final, Self, TypeAlias

from rabbitry._fields import Fields
from rabbitry.amqp.client._channel import DEFAULT_PREFETCH, ChannelCore
from rabbitry.amqp.client._link import Credentials, Dialing
from rabbitry.amqp.client._owner import check_asyncio
from rabbitry.amqp.client._receipts import raise_all
from rabbitry.amqp.client._recovery import Listener, Recovery, RecoveryEvent, connect_first
from rabbitry.amqp.client._session import CLOSE_TIMEOUT, Session
from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.url import BrokerURL, default_url, parse_url
from rabbitry.amqp.protocol.constants import DEFAULT_CHANNEL_MAX, FRAME_MIN_SIZE, FRAME_OVERHEAD
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import ConnectionClosed, RequestTimeout, UsageError

__all__ = ["Connecting", "Connection", "Credentials", "Declare", "RecoveryEvent", "connect"]

CONNECT_TIMEOUT: Final = 10.0
REQUEST_TIMEOUT: Final = 60.0
PUBLISH_TIMEOUT: Final = 60.0


class Connection:
    """A connection to a broker. Created by `connect`; an async context manager that closes it.

    Leaving its block without an error waits until all sent messages are confirmed, and raises the failures that nobody
    has retrieved as one ExceptionGroup. Leaving it with an error closes at once; the number of unconfirmed messages is
    logged.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return repr(self._session)

    async def __aenter__(self) -> Self:
        if (reason := self._session.close_reason) is not None:
            raise reason.fresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._session
        errors: ExceptionGroup[Exception] | None = None
        try:
            if error is None:
                if session.close_reason is None:
                    await session.wait_idle()
                errors = session.failures.take_unseen()
        finally:
            await self.close()
        raise_all(errors)

    @property
    def url(self) -> BrokerURL:
        """The broker's URL, with the password of the next login."""
        return self._session.url

    @property
    def request_timeout(self) -> float:
        """Default timeout, in seconds, of methods that wait for the broker's answer."""
        return self._session.request_timeout

    @request_timeout.setter
    def request_timeout(self, seconds: float) -> None:
        self._session.request_timeout = seconds

    @property
    def publish_timeout(self) -> float:
        """Default timeout, in seconds, of `publish` and `send` for a confirm."""
        return self._session.publish_timeout

    @publish_timeout.setter
    def publish_timeout(self, seconds: float) -> None:
        self._session.publish_timeout = seconds

    @property
    def is_open(self) -> bool:
        """Whether channels can be used now."""
        return self._session.is_open

    @property
    def close_reason(self) -> ConnectionClosed | None:
        """Why the connection is closed for good; None while it is not."""
        return self._session.close_reason

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishers; None while it does not."""
        return self._session.blocked

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """The broker's description of itself: product, version, capabilities and more."""
        return self._session.server_properties

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version as numbers, empty if it sends none."""
        return self._session.server_version

    @property
    def frame_limit(self) -> int:
        """The largest payload of a frame in bytes, agreed with the broker; also the limit of a message's properties."""
        link = self._session.link
        return FRAME_MIN_SIZE - FRAME_OVERHEAD if link is None else link.core.frame_limit

    @property
    def channel_max(self) -> int:
        """The most channels at once, agreed with the broker; while there is no connection, the client's own limit."""
        link = self._session.link
        return DEFAULT_CHANNEL_MAX if link is None else link.core.channel_max

    async def update_secret(self, secret: str, *, reason: str = "", timeout: float | None = None) -> None:
        """Replace the password of this connection, such as an OAuth token, before the old one expires.

        The connection stays open. A recovery logs in with `secret`, unless `connect` was given `credentials`. See
        RabbitMQ's page docs/oauth2, "Token Expiration and Refresh".

        Args:
            secret: the new password or token.
            reason: a text for the broker's log.
            timeout: seconds to wait for the broker's answer; None means the connection's `request_timeout`.

        Raises:
            UsageError: `secret` is not text.
            ConnectionClosed: when the broker refuses the secret and closes the connection, or the connection is lost.
            RequestTimeout: when no answer comes in time.
        """
        if not isinstance(secret, str):
            raise UsageError(f"a secret must be text, not {type(secret).__name__}")
        session = self._session
        link = await session.usable_link(timeout)
        seconds = session.request_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                await link.update_secret(secret, reason)
        except TimeoutError as error:
            raise RequestTimeout(f"connection.update-secret: no answer within {seconds} s") from error
        session.dialing.replace_password(secret)

    async def channel(
        self, prefetch: int = DEFAULT_PREFETCH, *, confirms: bool = True, timeout: float | None = None
    ) -> Channel:
        """Open a channel.

        Waits while the connection recovers.

        Args:
            prefetch: Limit on the unsettled deliveries of each consumer (0: no limit).
            confirms: False lets `publish` and `send` return once a message is written, without waiting for the broker:
                messages in flight when the connection is lost are lost, and `wait_for_confirms` or the end of the
                channel's block raises for a message that was not routed to any queue. Transactions need False.
            timeout: Seconds for the answer; None for the connection's `request_timeout`.

        Raises:
            ConnectionClosed: The connection is closed.
            UsageError: All channels are in use.
            RequestTimeout: The answer did not come in time.
        """
        core = ChannelCore(self._session, prefetch, confirms=confirms)
        await core.open(timeout)
        return Channel(core)

    async def wait_for_confirms(self) -> None:
        """Wait until everything sent before over any channel is confirmed.

        Raises the failures since the last call as one ExceptionGroup. The messages' own deadlines are the only limit.
        """
        self._session.check_loop()
        await self._session.wait_idle()
        raise_all(self._session.failures.take())

    async def close(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close in order: connection.close, wait for close-ok. Channels and waiters end with ConnectionClosed.

        Does nothing if it is closed. If the broker does not answer within `timeout` seconds, the socket is closed
        without it; cancelling closes it at once.
        """
        await self._session.close(timeout)

    async def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the connection is closed for good, by either side; `close_reason` then has the reason.

        Raises RequestTimeout past `timeout` seconds (None: no limit).
        """
        await self._session.wait_closed(timeout)


Declare: TypeAlias = Callable[[Connection], Awaitable[None]]
"""A function that declares the topology that a program needs over a connection."""


class Options(Fields):
    """The arguments of `connect` with the same names."""

    url: str | BrokerURL | None
    name: str | None
    timeout: float | None
    request_timeout: float
    publish_timeout: float
    recover: bool
    recovery_timeout: float | None
    on_recovery: Callable[[RecoveryEvent], None] | None
    on_blocked: Callable[[str | None], None] | None
    connect_attempts: int | None
    recovery_attempts: int | None
    declare: Declare | None
    log_level: int
    heartbeat: int | None
    ssl: SSLContext | None
    credentials: Credentials | None
    client_properties: Table | None

    def checked_url(self) -> BrokerURL:
        """Return the URL to connect to. Raises UsageError for invalid options or combinations of them."""
        self._check_types()
        url = self.url
        parsed = default_url() if url is None else url if isinstance(url, BrokerURL) else parse_url(url)
        if self.heartbeat is not None:
            if not 0 <= self.heartbeat <= 0xFFFF:
                raise UsageError(
                    f"heartbeat={self.heartbeat} is out of range: pass whole seconds from 0 (none) to 65535"
                )
            parsed = parsed._replace(heartbeat=self.heartbeat)
        if self.ssl is not None:
            if not parsed.tls:
                raise UsageError(f"ssl= needs a URL that begins with amqps://, not {parsed}")
            if not hasattr(self.ssl, "wrap_bio"):  # without importing ssl, which most programs do not need
                raise UsageError(f"ssl= must be an ssl.SSLContext, not {type(self.ssl).__name__}")
        attempts = {"connect_attempts": self.connect_attempts, "recovery_attempts": self.recovery_attempts}
        for option, most in attempts.items():
            if most is not None and most < 1:
                raise UsageError(f"{option}={most} is too small: pass 1 or more, or None for no limit")
        if "capabilities" in (self.client_properties or {}):
            raise UsageError("client_properties can't contain 'capabilities', which the client sets: remove that key")
        return parsed

    def _check_types(self) -> None:
        """Raise UsageError for an option whose value is of no use. Later it would fail elsewhere, or be ignored."""
        for option, kind, expected in _KINDS:
            value = getattr(self, option)
            if value is not None and not isinstance(value, kind):
                raise UsageError(f"{option}= must be {expected}, not {type(value).__name__}")
        for option in ("timeout", "request_timeout", "publish_timeout", "recovery_timeout"):
            seconds = getattr(self, option)
            if seconds is not None and not seconds > 0:
                raise UsageError(f"{option}={seconds} is no time limit: pass seconds above 0")
        for option in ("on_recovery", "on_blocked", "declare", "credentials"):
            function = getattr(self, option)
            if function is not None and not callable(function):
                raise UsageError(f"{option}= must be a function, not {type(function).__name__}")


_KINDS: Final = (
    ("name", str, "text"),
    ("timeout", int | float, "a number of seconds"),
    ("request_timeout", int | float, "a number of seconds"),
    ("publish_timeout", int | float, "a number of seconds"),
    ("recovery_timeout", int | float, "a number of seconds"),
    ("recover", bool, "True or False"),
    ("connect_attempts", int, "a whole number, or None for no limit"),
    ("recovery_attempts", int, "a whole number, or None for no limit"),
    ("log_level", int, "a number such as logging.INFO"),
    ("heartbeat", int, "a whole number of seconds"),
    ("client_properties", Mapping, "a dict"),
)
"""Options of `connect` with the type and the words for it."""


class Connecting:
    """The result of `connect`: awaited, or entered with `async with`, which closes the connection at its end.

    Works once: it makes one connection, and raises UsageError the second time.
    """

    def __init__(self, options: Options) -> None:
        """Check the options. Raises UsageError for invalid ones."""
        self._options: Options | None = options
        self._url = options.checked_url()
        self._entered: Connection | None = None

    def __await__(self) -> Generator[object, None, Connection]:
        return self._open().__await__()

    async def _open(self) -> Connection:
        check_asyncio()
        options, self._options = self._options, None
        if options is None:
            raise UsageError("this connect(…) was already awaited or entered: call rabbitry.connect again")
        return await _open(options, self._url)

    async def __aenter__(self) -> Connection:
        connection = self._entered = await self._open()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entered is not None:
            await self._entered.__aexit__(kind, error, traceback)


async def _open(options: Options, url: BrokerURL) -> Connection:
    """Make a connection. Raises as `connect` does."""
    seconds = options.timeout if options.timeout is not None else url.connection_timeout or CONNECT_TIMEOUT
    properties = dict(options.client_properties or {})
    if options.name is not None:
        properties["connection_name"] = options.name
    session = Session(
        Dialing(url, seconds, properties, options.ssl, options.credentials),
        options.request_timeout,
        options.publish_timeout,
        options.on_blocked,
    )
    connection = Connection(session)
    if (declare := options.declare) is not None:
        session.declaring.function = lambda: declare(connection)
    listener = Listener(session.dialing.label, options.on_recovery, options.log_level)
    if options.recover:
        session.recover = Recovery(session, options.recovery_timeout, options.recovery_attempts, listener).run
    await connect_first(session, options.connect_attempts, listener)
    return connection


def connect(  # noqa: PLR0913 - the options of a connection, each a keyword with a default
    url: str | BrokerURL | None = None,
    *,
    name: str | None = None,
    timeout: float | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    publish_timeout: float = PUBLISH_TIMEOUT,
    recover: bool = True,
    recovery_timeout: float | None = None,
    on_recovery: Callable[[RecoveryEvent], None] | None = None,
    on_blocked: Callable[[str | None], None] | None = None,
    connect_attempts: int | None = 1,
    recovery_attempts: int | None = None,
    declare: Declare | None = None,
    log_level: int = logging.WARNING,
    heartbeat: int | None = None,
    ssl: SSLContext | None = None,
    credentials: Credentials | None = None,
    client_properties: Table | None = None,
) -> Connecting:
    """Return a connection to a broker, to be entered with `async with` or awaited.

        async with rabbitry.connect("amqp://user:password@localhost:5672/vhost") as connection:
            channel = await connection.channel()

    Without a block: `connection = await rabbitry.connect(url)`, and `await connection.close()` at the end.

    Args:
        url: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS; everything after the scheme is optional, and
            further hosts follow as `,host2:port2`. Options such as `?heartbeat=30`: see `rabbitry.amqp.client.url`.
            None means the broker of the worker that runs this handler, or of the test harness; otherwise
            RABBITRY_BROKER, or guest on this machine (neither of the two in a pytest run).
        name: The connection's name at the broker and in the log.
        timeout: Seconds for each host; None for the URL's, or 10.
        request_timeout: Seconds for the answer to a request.
        publish_timeout: Seconds for a confirm.
        recover: Connect again when the connection is lost, or the broker closes it while shutting down, and restore
            channels, declarations, consumers and unconfirmed publishes.
        recovery_timeout: Seconds that one recovery may take; None for no limit.
        on_recovery: Called with each RecoveryEvent, those of the first connection included. Its errors are logged.
        on_blocked: Called with the broker's reason when it blocks publishers, and with None when it unblocks them. Its
            errors are logged.
        connect_attempts: How often all hosts are tried before ConnectFailed is raised, with pauses of 2 s at first that
            grow to 30 s; None for no limit.
        recovery_attempts: How often one recovery tries all hosts; None for no limit.
        declare: An async function that declares exchanges, queues and bindings. It is called with the connection when
            it was made, and after each recovery before consumers and publishes are restored. The client does not
            redeclare those objects itself. If the connection is lost meanwhile, an answer does not come in time, or
            NotFound is raised, the attempt has failed. Any other error ends the connection: it is raised for the first
            connection, and is the cause of `close_reason` for a later one.
        log_level: The level at which losses and failed attempts are logged; `logging.WARNING`, which is 30.
        heartbeat: Seconds, instead of the URL's; 0 for none.
        ssl: The TLS context of an amqps URL, instead of the URL's parameters.
        credentials: A function that returns (user, password), or an awaitable of them, instead of those in the URL. It
            is called in a thread for each login.
        client_properties: Properties that the broker shows; they add to or replace product, version and platform.

    Raises:
        UsageError: The URL or an option is invalid, or the result is awaited or entered twice.
        ConnectFailed: No host answers.
        LoginRefused: The broker refused the login.
        VirtualHostRefused: The virtual host does not exist, or the user may not use it.
    """
    return Connecting(
        Options(
            url=url, name=name, timeout=timeout, request_timeout=request_timeout, publish_timeout=publish_timeout,
            recover=recover, recovery_timeout=recovery_timeout, on_recovery=on_recovery, on_blocked=on_blocked,
            connect_attempts=connect_attempts, recovery_attempts=recovery_attempts, declare=declare,
            log_level=log_level, heartbeat=heartbeat, ssl=ssl, credentials=credentials,
            client_properties=client_properties,
        )
    )  # fmt: skip
