"""A connection to a broker, and `connect`, which makes one."""

import asyncio
import contextvars
import dataclasses
import inspect
import logging
import ssl as _ssl
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeAlias

from rabbitry.amqp.client import _fork
from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._loops import check_asyncio, check_loop
from rabbitry.amqp.client._receipts import Failures, raise_all
from rabbitry.amqp.client._recovery import (
    RECOVERABLE,
    Listener,
    Recovery,
    RecoveryEvent,
    connect_first,
    restore_topology,
)
from rabbitry.amqp.client._resending import Resending
from rabbitry.amqp.client._topology import Topology
from rabbitry.amqp.client.channel import DEFAULT_PREFETCH, Channel
from rabbitry.amqp.client.consuming import Consumer
from rabbitry.amqp.client.url import BrokerURL, default_url, parse_url
from rabbitry.amqp.protocol.constants import FRAME_MIN_SIZE, FRAME_OVERHEAD
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import (
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    RabbitryError,
    RequestTimeout,
    UsageError,
    UsedAfterFork,
    VirtualHostRefused,
)

CONNECT_TIMEOUT: Final = 10.0
REQUEST_TIMEOUT: Final = 60.0
PUBLISH_TIMEOUT: Final = 60.0
CLOSE_TIMEOUT: Final = 5.0
_log = logging.getLogger(__name__)

Credentials: TypeAlias = Callable[[], tuple[str, str] | Awaitable[tuple[str, str]]]
"""A function that returns (user, password), or an awaitable of them. It is called for each login, in a thread."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a connection beside its URL: the arguments of `connect` with the same names."""

    properties: Table = field(default_factory=dict)
    ssl: _ssl.SSLContext | None = None
    credentials: Credentials | None = field(default=None, repr=False)
    on_blocked: Callable[[str | None], None] | None = None
    connect_attempts: int | None = 1
    declare: "Declare | None" = None


_declaring: contextvars.ContextVar[object] = contextvars.ContextVar("the call of `declare` that this code runs in")


class Connection:
    """A connection to a broker. Made by `connect`; an async context manager that closes it.

    Leaving its block without an error waits until all that was sent is confirmed, and raises what failed and nobody has
    looked at as one ExceptionGroup. Leaving it with an error closes at once; what was not confirmed is counted in the
    log.

    request_timeout, publish_timeout: seconds, what methods of its channels wait where they are not told
    otherwise. channels: those that are open, or come back with the connection.
    """

    def __init__(
        self,
        url: BrokerURL,
        settings: Settings,
        request_timeout: float,
        publish_timeout: float,
        listener: Listener,
        recovery: Recovery | None,
    ) -> None:
        self.url = url
        self.request_timeout = request_timeout
        self.publish_timeout = publish_timeout
        self.blocked: str | None = None
        self.link: Link | None = None
        self.channels: set[Channel] = set()
        self.topology = Topology()
        self.loop = asyncio.get_running_loop()
        self.failures = Failures(self.loop, str(url))
        self.resending = Resending(str(url))
        self._settings = settings
        self._listener = listener
        self._declaring: set[object] = set()
        """The calls of the program's `declare` that run now."""
        self._recovery = recovery
        self._recovering: asyncio.Task[None] | None = None
        self._usable = asyncio.Event()
        self._close_reason: ConnectionClosed | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._timeout = CONNECT_TIMEOUT
        _fork.note(self)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed" if self._close_reason else "recovering"
        return f"<Connection to {self.url} {state}>"

    async def __aenter__(self) -> Self:
        if self._close_reason is not None:
            raise self._close_reason.fresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        errors: ExceptionGroup[Exception] | None = None
        try:
            if error is None:
                if self._close_reason is None:
                    for channel in list(self.channels):
                        await channel.window.wait_idle(None)
                errors = self.failures.take_unseen()
        finally:
            await self.close()
        raise_all(errors)

    @property
    def is_open(self) -> bool:
        """Whether channels can be used at this moment."""
        return self._usable.is_set() and self.link is not None and self.link.is_open

    @property
    def close_reason(self) -> ConnectionClosed | None:
        """Why the connection is closed for good; None while it is not."""
        return self._close_reason

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """The broker's description of itself: product, version, capabilities and more."""
        return {} if self.link is None else self.link.server_properties

    @property
    def frame_limit(self) -> int:
        """The most bytes that one frame may carry, and so a message's properties, as agreed with the broker."""
        return FRAME_MIN_SIZE - FRAME_OVERHEAD if self.link is None else self.link.core.frame_limit

    async def open(self, timeout: float) -> None:
        """Connect, trying each host for `timeout` seconds; for `connect`. Raises as `connect` does."""
        self._timeout = timeout
        self._recovering = asyncio.current_task()  # a link that is lost meanwhile is another failed attempt
        try:
            await connect_first(self, self._settings.connect_attempts, self._listener)
        except BaseException as error:
            if self.link is not None and not isinstance(error, Exception):
                self.link.driver.abort()  # cancelled: no time for an orderly end
            await self.close()
            raise
        finally:
            self._recovering = None

    async def declare(self) -> None:
        """Run the program's declarations over the present link; for recovery.

        What runs within the call uses the link at once, and what it declares is not noted for recovery.

        Raises ConnectionClosed, RequestTimeout, and what the program's function raises.
        """
        declare = self._settings.declare
        if declare is None:
            return
        call = object()
        self._declaring.add(call)
        token = _declaring.set(call)
        try:
            await declare(self)
        except RabbitryError:
            raise
        except TimeoutError as error:  # its own; that of a recovery cancels instead
            raise RequestTimeout(f"declare= did not end in time: {error!r}") from error
        finally:
            _declaring.reset(token)
            self._declaring.discard(call)

    @property
    def is_declaring(self) -> bool:
        """Whether this code runs within the program's `declare`."""
        return _declaring.get(None) in self._declaring

    async def new_link(self) -> Link:
        """Try the hosts in their order until one takes us.

        Raises ConnectFailed naming every host and cause; LoginRefused and VirtualHostRefused at once, since
        other hosts of the same cluster would say the same.
        """
        causes: list[str] = []
        settings = self._settings
        url = await self._login()
        for host, port in self.url.hosts:
            link = Link(self)
            try:
                async with asyncio.timeout(self._timeout):
                    await link.open(host, port, url, settings.properties, settings.ssl)
            except (LoginRefused, VirtualHostRefused):
                raise
            except TimeoutError:
                causes.append(f"no answer from {host}:{port} within {self._timeout} s")
            except ConnectFailed as error:
                causes.append(str(error))
            else:
                return link
        raise ConnectFailed("; ".join(causes))

    async def _login(self) -> BrokerURL:
        """Return the URL with the user and password of the next login.

        Raises ConnectFailed where the `credentials` function raises or takes longer than the connection's timeout: a
        recovery then tries again, since the server that issues tokens may be down for a while.
        """
        credentials = self._settings.credentials
        if credentials is None:
            return self.url
        try:
            async with asyncio.timeout(self._timeout):
                answer = await asyncio.to_thread(credentials)  # it may ask a server for a token
                user, password = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError as error:
            raise ConnectFailed(f"the credentials function returned nothing within {self._timeout} s") from error
        except Exception as error:
            raise ConnectFailed(f"the credentials function raised {type(error).__name__}: {error}") from error
        return dataclasses.replace(self.url, user=user, password=password)

    async def update_secret(self, secret: str, *, reason: str = "", timeout: float | None = None) -> None:
        """Replace the password of this connection, such as an OAuth token, before the old one expires.

        The connection stays open. A recovery logs in with `secret`, unless `connect` was given `credentials`. See
        RabbitMQ's page docs/oauth2, "Token Expiration and Refresh".

        Args:
            secret: the new password or token.
            reason: a text for the broker's log.
            timeout: seconds to wait for the broker's answer; None means the connection's `request_timeout`.

        Raises:
            ConnectionClosed: when the broker refuses the secret and closes the connection, or the connection is lost.
            RequestTimeout: when no answer comes in time.
        """
        link = await self.usable_link(timeout)
        seconds = self.request_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                await link.update_secret(secret, reason)
        except TimeoutError as error:
            raise RequestTimeout(f"connection.update-secret: no answer within {seconds} s") from error
        self.url = dataclasses.replace(self.url, password=secret)

    async def channel(
        self, prefetch: int = DEFAULT_PREFETCH, *, confirms: bool = True, timeout: float | None = None
    ) -> Channel:
        """Open a channel. prefetch: how many unsettled deliveries each consumer may have (0: no limit).

        confirms: False lets `publish` and `send` return once a message is written, without waiting for the broker:
        messages on their way when the connection is lost are lost, and a message that no queue takes is raised by
        `wait_for_confirms` or at the end of the channel's block. Transactions need False.

        Waits while the connection recovers. Raises ConnectionClosed where it is closed, UsageError where all
        channels are in use, RequestTimeout.
        """
        channel = Channel(self, prefetch, confirms=confirms)
        await channel.open(timeout=timeout)
        return channel

    async def wait_for_confirms(self) -> None:
        """Wait until everything sent before over any channel is confirmed.

        Raises what failed since the last call as one ExceptionGroup. There is no limit but the messages' own deadlines.
        """
        check_loop(self.loop, self)
        for channel in list(self.channels):
            await channel.window.wait_idle(None)
        raise_all(self.failures.take())

    async def close(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close in order: connection.close, wait for close-ok. Channels and what waits end with ConnectionClosed.

        Does nothing where it is closed. A broker that does not answer within `timeout` seconds is hung up on;
        cancelling hangs up at once.
        """
        if isinstance(self._close_reason, UsedAfterFork):
            return
        check_loop(self.loop)
        reason = ConnectionClosed(0, "the connection was closed by this program")
        self._recovery = None  # a loss from here on is final
        try:
            if self._recovering is not None and self._recovering is not asyncio.current_task():
                self._recovering.cancel()
                await asyncio.wait((self._recovering,))
            if self.link is not None:
                await self.link.close(reason, timeout)
        finally:
            if self.link is not None:
                self.link.driver.abort()
            self.end(reason)

    async def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the connection is closed for good, by whomever; `close_reason` then says why.

        Raises RequestTimeout past `timeout` seconds (None: no limit).
        """
        check_loop(self.loop, self)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._closed)
        except TimeoutError as error:
            raise RequestTimeout(f"the connection is still open after {timeout} s") from error

    async def usable_link(self, timeout: float | None) -> Link:
        """Return the link to send over, having waited while the connection recovers.

        Raises ConnectionClosed where it is closed for good, RequestTimeout.
        """
        check_loop(self.loop, self)
        if self.link is not None and self.is_declaring:
            if not self.link.is_open:
                raise ConnectionClosed(0, "the new connection was lost before all was declared")
            return self.link
        if not self.is_open and self._close_reason is None:
            seconds = self.request_timeout if timeout is None else timeout
            try:
                async with asyncio.timeout(seconds):
                    await self._wait_usable()
            except TimeoutError as error:
                raise RequestTimeout(f"the connection did not come back within {seconds} s") from error
        if self._close_reason is not None:
            raise self._close_reason.fresh()
        if self.link is None:
            raise UsageError("the connection was never opened; use `rabbitry.connect`")
        return self.link

    async def _wait_usable(self) -> None:
        while not self.is_open and self._close_reason is None:  # it may be lost again before this task runs
            if self._usable.is_set() and self.link is not None:
                await self.link.wait_lost()  # it is being closed; then it comes back, or not
            else:
                await self._usable.wait()

    # -- what the link tells ---------------------------------------------------------------------------

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version as numbers, empty where it says none."""
        text = str(self.server_properties.get("version", ""))
        return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdecimal())

    async def restore_topology(self) -> None:
        """Declare again what was declared over this connection. Raises ConnectionClosed, and what `declare` raises."""
        await restore_topology(self, await self.usable_link(None))

    def on_fork(self, parent: int) -> None:
        """Abandon the connection in a child process: the socket is the parent's, and nothing of it is touched."""
        error = UsedAfterFork.here(parent)
        self._recovery = None
        self._close_reason = error
        self._usable.set()
        if self.link is not None:
            self.link.driver.detach()
        for channel in list(self.channels):
            channel.on_fork(error)

    # -- what the broker has deleted -------------------------------------------------------------------

    def _consumers_of(self, queue: str) -> list[Consumer]:
        """Return the consumers of a queue, which the program knows by this name."""
        known = self.topology.known
        all_of_them = (consumer for channel in self.channels for consumer in channel.consumers)
        return [consumer for consumer in all_of_them if known(consumer.queue) == queue]

    def consumer_gone(self, consumer: Consumer) -> None:
        """Forget an auto-delete queue with its last consumer; what was left of it begins to expire."""
        queue = self.topology.known(consumer.queue)
        self.topology.queue_used(queue, self.loop.time())
        if consumer.has_started and self._close_reason is None and not self._consumers_of(queue):
            self.topology.last_consumer_gone(queue)

    def queue_gone(self, queue: str) -> None:
        """Forget a queue that the broker no longer has, unless a consumer here declares it again."""
        name = self.topology.known(queue)
        if not any(consumer.restore for consumer in self._consumers_of(name)):
            self.topology.queue_deleted(name)

    def not_found(self, reply_text: str) -> None:
        """Forget the queue or exchange that RabbitMQ's words for 404 name."""
        for kind, forget in ("queue", self.queue_gone), ("exchange", self.topology.exchange_deleted):
            before, after = f"NOT_FOUND - no {kind} '", "' in vhost '"
            if reply_text.startswith(before) and after in reply_text:
                forget(reply_text[len(before) : reply_text.rindex(after)])

    def forget_expired(self) -> None:
        """Forget queues that the broker let expire."""
        known = self.topology.known
        consumed = {known(consumer.queue) for channel in self.channels for consumer in channel.consumers}
        self.topology.forget_expired(self.loop.time(), consumed)

    def check_process(self) -> None:
        """Raise UsedAfterFork where the connection is the parent process's."""
        if isinstance(self._close_reason, UsedAfterFork):
            raise self._close_reason.fresh()

    def on_blocked(self, reason: str | None) -> None:
        """Note whether the broker blocks publishers, and let them go on when it no longer does."""
        self.blocked = reason
        if reason is None:
            self.on_link_writable()
        self._tell_blocked(reason)

    def _tell_blocked(self, reason: str | None) -> None:
        listener = self._settings.on_blocked
        if listener is not None:
            try:
                listener(reason)
            except Exception:  # noqa: BLE001 - user code: the frames behind connection.blocked must still be read
                _log.exception("on_blocked raised an exception when called with %r; the connection stays open", reason)

    def on_link_writable(self) -> None:
        """Resume the publishers of all channels."""
        for channel in list(self.channels):
            channel.wake_publishers()

    def on_link_lost(self, link: Link, error: ConnectionClosed) -> None:
        """Recover if that is wanted and of use, or else end the connection."""
        if link is not self.link:
            return  # one that recovery tried and lost
        if self.blocked is not None:
            self.blocked = None
            self._tell_blocked(None)
        for handler in list(link.channels.values()):
            if handler not in self.channels:
                handler.on_link_gone(error)  # it was closing
        if self._recovery is None or error.reply_code not in RECOVERABLE:
            self.end(error)
            return
        self._usable.clear()
        self.resending.on_lost(error, [channel.window for channel in self.channels])
        for channel in list(self.channels):
            channel.suspend(error)
        if self._recovering is None or self._recovering.done():
            self._recovering = asyncio.create_task(self._recovery.run(self, error), name="recovery")

    def resumed(self) -> None:
        """Resume: recovery has restored everything."""
        self._usable.set()
        self.resending.begin(channel.window for channel in self.channels)

    def end(self, error: ConnectionClosed) -> None:
        """End for good: channels and everybody who waits get the reason."""
        if self._close_reason is None:
            self._close_reason = error
        self.resending.stop()
        for channel in list(self.channels):
            channel.on_link_gone(error)
        self.failures.tell()
        self._usable.set()
        if not self._closed.done():
            self._closed.set_result(None)


Declare: TypeAlias = Callable[[Connection], Awaitable[None]]
"""A function that declares what a program needs over a connection."""


class Connecting:
    """The result of `connect`: awaited, or entered with `async with`, which closes the connection at its end.

    Either once: it makes one connection. Raises UsageError the second time.
    """

    def __init__(self, make: Callable[[], Connection], timeout: float) -> None:
        """make: makes the connection, within the event loop. timeout: seconds for each host."""
        self._make: Callable[[], Connection] | None = make
        self._timeout = timeout
        self._entered: Connection | None = None

    def __await__(self) -> Generator[object, None, Connection]:
        return self._open().__await__()

    async def _open(self) -> Connection:
        check_asyncio()
        make, self._make = self._make, None
        if make is None:
            raise UsageError("this connect(…) was awaited or entered before: call rabbitry.connect again")
        connection = make()
        await connection.open(self._timeout)
        return connection

    async def __aenter__(self) -> Connection:
        connection = self._entered = await self._open()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entered is not None:
            await self._entered.__aexit__(kind, error, traceback)


def connect(
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
    declare: "Declare | None" = None,
    log_level: int = logging.WARNING,
    heartbeat: int | None = None,
    ssl: _ssl.SSLContext | None = None,
    credentials: Credentials | None = None,
    client_properties: Table | None = None,
) -> Connecting:
    """Connect to a broker: `async with connect(url) as connection`, or `connection = await connect(url)`.

    url: see `rabbitry.amqp.client.url`; None means the broker of the worker that runs this handler, or of the test
    harness; elsewhere RABBITRY_BROKER, and where that is not set, guest on this machine (neither in a pytest run).
    name: what the broker's operator sees. timeout: seconds for each host, default 10 or what the URL says.
    request_timeout, publish_timeout: seconds, see Connection.

    recover: connect again when the connection is lost, or the broker closes it on its way down, and restore
    channels, what was declared over it, consumers and unconfirmed publishes; see `rabbitry.amqp.client._recovery`.
    recovery_timeout: seconds that one recovery may take (None: no end). recovery_attempts: how often one recovery tries
    all hosts (None: no limit). on_recovery: called with each RecoveryEvent, those of the first connection included;
    what it raises is logged. log_level: the level at which losses and failed attempts are logged.

    declare: an async function that declares exchanges, queues and bindings. It is called with the connection when it
    was made, and after each recovery before anything is consumed or published again. It declares what the program
    uses even where it exists with other arguments, or under another name by then: what it declares is not declared
    again besides. A connection lost meanwhile, no answer in time and NotFound make another failed attempt; everything
    else that it raises ends the connection, and is raised where it is the first one, else the cause of `close_reason`.

    on_blocked: a function called with the broker's reason when it blocks publishers, and with None when it unblocks
    them; exceptions that it raises are logged. connect_attempts: how often all hosts are tried, with pauses of 2 s at
    first that grow to 30 s, before ConnectFailed is raised (None: no limit).

    heartbeat: seconds, in place of the URL's (0: none). ssl: the TLS context of an amqps URL, in place of the one that
    the URL's parameters describe. credentials: a function that returns (user, password), or an awaitable of them, in
    place of those in the URL; called in a thread for each login and recovery. client_properties: added to product,
    version and platform, which the broker's operator sees; they may replace these.

    Raises UsageError for a URL that makes no sense and for a result that is awaited or entered twice, ConnectFailed
    where no host answers, LoginRefused and VirtualHostRefused.
    """
    parsed = default_url() if url is None else url if isinstance(url, BrokerURL) else parse_url(url)
    seconds = timeout if timeout is not None else parsed.connection_timeout or CONNECT_TIMEOUT
    if heartbeat is not None:
        parsed = dataclasses.replace(parsed, heartbeat=_checked_heartbeat(heartbeat))
    if ssl is not None and not parsed.tls:
        raise UsageError(f"ssl= needs a URL that begins with amqps://, not {parsed}")
    for option, attempts in ("connect_attempts", connect_attempts), ("recovery_attempts", recovery_attempts):
        if attempts is not None and attempts < 1:
            raise UsageError(f"{option}={attempts} is too small: pass 1 or more, or None for no limit")
    properties = dict(client_properties or {})
    if "capabilities" in properties:
        raise UsageError("client_properties can't contain 'capabilities', which the client sets: remove that key")
    if name is not None:
        properties["connection_name"] = name
    settings = Settings(properties, ssl, credentials, on_blocked, connect_attempts, declare)
    listener = Listener(str(parsed), on_recovery, log_level)
    recovery = Recovery(recovery_timeout, recovery_attempts, listener) if recover else None
    return Connecting(
        lambda: Connection(parsed, settings, request_timeout, publish_timeout, listener, recovery), seconds
    )


def _checked_heartbeat(seconds: int) -> int:
    if not 0 <= seconds <= 0xFFFF:
        raise UsageError(f"heartbeat={seconds} is out of range: pass whole seconds from 0 (none) to 65535")
    return seconds
