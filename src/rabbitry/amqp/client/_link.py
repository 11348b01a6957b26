"""One socket's life: connecting to one of the hosts, the handshake, and passing events to the channels.

A connection outlives its link (recovery opens a new one); state that belongs to one socket lives here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

from rabbitry.amqp.client._receipts import fail
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.connection import Role
from rabbitry.amqp.protocol.constants import DEFAULT_CHANNEL_MAX, DEFAULT_FRAME_MAX, DEFAULT_HEARTBEAT, Reply
from rabbitry.amqp.protocol.events import ACK, METHOD, VIOLATION, ContentEvent, Event
from rabbitry.amqp.protocol.methods import (
    ConnectionBlocked,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    ConnectionUnblocked,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    Method,
)
from rabbitry.amqp.protocol.states import ConnectionState
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import (
    Closed,
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    ProtocolViolation,
    VirtualHostRefused,
    connection_closed,
)

_logger = logging.getLogger(__name__)
CAPABILITIES: Final[Table] = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
LOOK_EVERY: Final = 8 << 20
"""Bytes read from the socket after which consumers' buffers are measured: counting each message would cost CPU."""
_CLOSE_TIMEOUT: Final = 5.0
_VIOLATION_TIMEOUT: Final = 1.0
"""Seconds that a broker which broke the protocol has to close the socket after it was sent the reason."""
Credentials: TypeAlias = Callable[[], tuple[str, str] | Awaitable[tuple[str, str]]]
"""A function that returns (user, password), or an awaitable of them. It is called in a thread for each login."""
_T = TypeVar("_T", bound=Method)


def _on_loop_blocked(seconds: float, heartbeat: float, stack: str) -> None:
    _logger.warning(
        "the event loop is blocked for %.1f s, longer than the heartbeat of %g s: the broker may close the connection. "
        "Move the blocking call to a thread (asyncio.to_thread). It is in:\n%s",
        seconds,
        heartbeat,
        stack,
    )


def _on_loop_resumed(seconds: float) -> None:
    _logger.warning("the event loop runs again after %.1f s", seconds)


class _ClosedByBroker(ConnectFailed):
    """The broker closed the connection during the handshake, with a reason."""

    def __init__(self, reply_code: int, text: str) -> None:
        super().__init__(text)
        self.reply_code = reply_code


if TYPE_CHECKING:
    from rabbitry.runtime.loop_watchdog import Watch

    class ChannelHandler(Protocol):
        """The receiver of one channel's events."""

        def on_content(self, event: ContentEvent) -> None:
            """Process a delivery, a returned message, or the answer to a get."""

        def on_confirm(self, delivery_tag: int, *, multiple: bool) -> None:
            """Process an ack of the broker."""

        def on_method(self, method: Method) -> None:
            """Process any other method."""

        def on_link_gone(self, error: Closed) -> None:
            """Handle the final loss of the link."""

        @property
        def awaits_answer(self) -> bool:
            """Whether an answer or a confirm is outstanding, or a publisher waits."""

        def measure_buffers(self) -> None:
            """Update the size of each consumer's buffer."""

    class LinkOwner(Protocol):
        """The owner of a link, which is told of its end: the connection."""

        blocked: str | None
        """Why the broker blocks publishers; None while it does not."""

        def on_blocked(self, reason: str | None) -> None:
            """Handle that the broker blocks publishers (with its reason), or no longer does (None)."""

        def on_link_lost(self, link: Link, error: ConnectionClosed) -> None:
            """Handle the loss of the socket. Called once, and only if the handshake was completed."""

        def on_link_writable(self) -> None:
            """Resume writing: the socket has room again."""


class Link:
    """One TCP connection to a broker, from its handshake to its end."""

    def __init__(self, owner: LinkOwner) -> None:
        self.core: Core = Core(
            Role.CLIENT, frame_max=DEFAULT_FRAME_MAX, channel_max=DEFAULT_CHANNEL_MAX, max_body_size=1 << 40
        )
        self.driver: Driver = Driver(self.core, self)
        self.channels: dict[int, ChannelHandler] = {}
        self.server_properties: dict[str, FieldValue] = {}
        self.heartbeat: int = 0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._answers: asyncio.Queue[Method] = asyncio.Queue()
        self._lost: asyncio.Future[ConnectionClosed] = self._loop.create_future()
        self._reason: ConnectionClosed | None = None
        self._open = False
        self._watch: Watch | None = None
        self._holders: set[object] = set()
        self._measure_at = LOOK_EVERY
        self._last_resort: asyncio.TimerHandle | None = None
        self._secrets: deque[asyncio.Future[None]] = deque()
        """Futures that wait for connection.update-secret-ok; the broker answers in the order of the requests."""

    # -- opening ---------------------------------------------------------------------------------------

    async def open(
        self, host: str, port: int, url: BrokerURL, properties: Table, context: ssl.SSLContext | None = None
    ) -> None:
        """Connect to `host` and log in.

        properties: the program's own client properties, in addition to the standard ones. context: for TLS; None means
        the one of the URL.

        Raises ConnectFailed, LoginRefused or VirtualHostRefused, naming host and cause. Cancelling closes
        the socket.
        """
        try:
            if url.tls:
                from rabbitry.amqp.client._tls import make_context  # most connections have no TLS

                context = context or await asyncio.to_thread(make_context, url)
                name_to_check = url.server_name or host
                await self._loop.create_connection(
                    lambda: self.driver, host, port, ssl=context, server_hostname=name_to_check
                )
            else:
                await self._loop.create_connection(lambda: self.driver, host, port)
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {host}:{port} is not trusted: {error.verify_message}"
            raise ConnectFailed(text) from error
        except ssl.SSLError as error:
            raise ConnectFailed(f"no TLS with {host}:{port}: {error.reason or error}") from error
        except OSError as error:
            # asyncio's text for a refused connection says only that a call failed; the system's text has the reason.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            raise ConnectFailed(f"no broker at {host}:{port}: {reason}") from error
        try:
            await self._handshake(f"{host}:{port}", url, properties)
        except BaseException:
            self.driver.abort()
            raise
        if self._lost.done():  # in the loop iteration that brought open-ok, before anyone was told
            raise ConnectFailed(f"the broker at {host}:{port} closed the socket after the login: {self._lost.result()}")
        self._open = True
        if self.heartbeat:  # a broker considers a client dead that is silent for two heartbeats
            from rabbitry.runtime.loop_watchdog import Alarm, Watch  # only connections with heartbeats have one

            self._watch = Watch(self.heartbeat, Alarm(_on_loop_blocked, _on_loop_resumed))

    async def _handshake(self, where: str, url: BrokerURL, properties: Table) -> None:
        self.driver.write(self.core.send_header())
        start = await self._expect(ConnectionStart, where, "it sent no AMQP 0-9-1 connection.start")
        self.server_properties = dict(start.server_properties)
        mechanism = "EXTERNAL" if url.external else "PLAIN"
        if mechanism.encode() not in start.mechanisms.split():
            offered = start.mechanisms.decode(errors="replace")
            raise LoginRefused(f"the broker at {where} does not offer the login mechanism {mechanism}, only {offered}")
        # EXTERNAL takes the name from the client's certificate (RFC 4422, appendix A).
        response = b"" if url.external else b"\0" + url.user.encode() + b"\0" + url.password.encode()
        self.send(0, ConnectionStartOk(_client_properties(properties), mechanism, response))
        try:
            tune = await self._expect(ConnectionTune, where, "it closed the connection after the login")
        except ConnectFailed as error:
            # A broker that reports a refused login does so with 403. Any other closes the socket, and then a refusal is
            # the likelier cause (RabbitMQ's docs/auth-failure).
            silent = not _tells_refusals(start) and not isinstance(error, _ClosedByBroker)
            if silent or (isinstance(error, _ClosedByBroker) and error.reply_code == Reply.ACCESS_REFUSED):
                who = "with its certificate" if url.external else f"of user {url.user!r}: check user and password"
                raise LoginRefused(f"the broker at {where} refused the login {who} ({error})") from error
            raise
        frame_max = _agree(url.frame_max, tune.frame_max, DEFAULT_FRAME_MAX)
        channel_max = _agree(url.channel_max, tune.channel_max, DEFAULT_CHANNEL_MAX)
        self.heartbeat = _agree_heartbeat(url.heartbeat, tune.heartbeat)
        self.send(0, ConnectionTuneOk(channel_max, frame_max, self.heartbeat))
        self.core.tuned(frame_max, channel_max)
        self.driver.start_heartbeat(self.heartbeat)
        self.send(0, ConnectionOpen(url.virtual_host))
        try:
            await self._expect(ConnectionOpenOk, where, "it closed the connection on opening the virtual host")
        except _ClosedByBroker as error:
            if error.reply_code not in (Reply.NOT_ALLOWED, Reply.INVALID_PATH, Reply.ACCESS_REFUSED):
                raise
            text = f"the broker at {where} refused virtual host {url.virtual_host!r} to user {url.user!r} ({error})"
            raise VirtualHostRefused(text) from error

    async def _expect(self, kind: type[_T], where: str, otherwise: str) -> _T:
        """Wait for the handshake's next method, which must be of type `kind`."""
        answer = asyncio.ensure_future(self._answers.get())
        try:
            await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
        if answer.done() and not answer.cancelled():
            method = answer.result()
            if isinstance(method, kind):
                return method
            if isinstance(method, ConnectionClose):
                raise _ClosedByBroker(method.reply_code, f"{where}: {method.reply_code} {method.reply_text}")
            raise ConnectFailed(f"the broker at {where} sent {type(method).__name__} instead of {kind.__name__}")
        error = self._lost.result()
        raise ConnectFailed(f"the broker at {where} closed the socket: {otherwise}; {error}") from error

    # -- the driver's events ---------------------------------------------------------------------------

    def on_events(self, events: list[Event]) -> None:
        """Pass each event to its channel; connection methods are handled here."""
        try:
            self._dispatch(events)
        except ProtocolViolation as violation:
            self._on_violation(violation)
        if self.driver.bytes_received >= self._measure_at:
            self._measure_at = self.driver.bytes_received + LOOK_EVERY
            for channel in self.channels.values():
                channel.measure_buffers()
        if self._holders:
            self.hold_or_read()

    def _dispatch(self, events: list[Event]) -> None:
        channels = self.channels
        for event in events:
            kind = event[0]
            if kind <= 4:
                handler = channels.get(event[1])
                if handler is not None:
                    handler.on_content(event)  # type: ignore[arg-type] # kinds 1 to 4 are contents
            elif event[0] == ACK:
                handler = channels.get(event[1])
                if handler is not None:
                    handler.on_confirm(event[2], multiple=event[3])
            elif event[0] == METHOD:
                self._on_method(event[1], event[2])
            elif event[0] == VIOLATION:
                self._on_violation(event[2])

    def _on_method(self, channel: int, method: Method) -> None:
        if channel:
            handler = self.channels.get(channel)
            if handler is not None:
                handler.on_method(method)
        elif isinstance(method, ConnectionClose):
            self._on_close(method)
        elif isinstance(method, ConnectionCloseOk):
            self.driver.close()
        elif isinstance(method, ConnectionBlocked):
            self._owner.on_blocked(method.reason)
        elif isinstance(method, ConnectionUnblocked):
            self._owner.on_blocked(None)
        elif isinstance(method, ConnectionUpdateSecretOk):
            if self._secrets and not (waiter := self._secrets.popleft()).done():
                waiter.set_result(None)
        elif not self._open:
            self._answers.put_nowait(method)

    def _on_close(self, method: ConnectionClose) -> None:
        if self._reason is None:
            self._reason = connection_closed(*method)
        if not self._open:
            self._answers.put_nowait(method)
        self.send(0, ConnectionCloseOk())
        self._hang_up()

    def _on_violation(self, violation: ProtocolViolation) -> None:
        """Close with the violation as the reason, and then the socket: the broker's data can't be trusted any more.

        Input is read and discarded for a moment, so that the reason reaches the broker.
        """
        if self._reason is None:
            self._reason = connection_closed(violation.reply_code, f"the broker broke the protocol: {violation}", 0, 0)
            self._reason.__cause__ = violation
        if self.core.state is ConnectionState.OPEN:
            self.send(0, ConnectionClose(violation.reply_code, violation.reply_text[:200]))
        self.driver.finish(_VIOLATION_TIMEOUT)

    def _hang_up(self) -> None:
        """Close the socket once all data is sent, or after a while if the broker reads nothing."""
        if self._last_resort is None:
            self._last_resort = self._loop.call_later(_CLOSE_TIMEOUT, self.driver.abort)
        self.driver.close()

    def on_lost(self, error: Exception | None) -> None:
        """Clean up, and fail everything that waits with the reason."""
        reason = self._reason
        if reason is None:
            reason = ConnectionClosed(0, f"connection lost: {error or 'the broker closed the socket'}")
            reason.__cause__ = error
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._lost.set_result(reason)
        while self._secrets:
            fail(self._secrets.popleft(), reason.fresh())
        if self._watch is not None:
            self._watch.stop()
        if self._open:
            self._owner.on_link_lost(self, reason)

    def on_writable(self) -> None:
        """Notify the owner that the socket has room again."""
        self._owner.on_link_writable()

    # -- for the connection and its channels -----------------------------------------------------------

    def send(self, channel: int, method: Method) -> None:
        """Send a method together with all other data of this loop iteration. Raises UsageError as the core does."""
        self.driver.write(self.core.send_method(channel, method))

    async def update_secret(self, secret: str, reason: str) -> None:
        """Send connection.update-secret and wait for the answer. Raises ConnectionClosed if the broker refuses."""
        if not self.is_open:
            raise ConnectionClosed(0, "the connection is closing")
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.send(0, ConnectionUpdateSecret(secret.encode(), reason))
        self._secrets.append(waiter)
        self.hold_or_read()
        await waiter

    def free_channel_number(self) -> int | None:
        """Return the lowest channel number that is not in use, or None."""
        return next((n for n in range(1, self.core.channel_max + 1) if n not in self.channels), None)

    def hold_reading(self, holder: object) -> None:
        """Stop reading the socket until every holder has released it, or an answer is outstanding.

        An answer, a confirm or `connection.unblocked` arrives behind deliveries. Code that waits for one inside a
        consumer's loop would otherwise wait forever.
        """
        self._holders.add(holder)
        self.hold_or_read()

    def release_reading(self, holder: object) -> None:
        """Undo `hold_reading`."""
        self._holders.discard(holder)
        self.hold_or_read()

    @property
    def is_held(self) -> bool:
        """Whether any holder wants reading to pause."""
        return bool(self._holders)

    def hold_or_read(self) -> None:
        """Pause or resume reading, according to holders and outstanding answers."""
        if (
            not self._holders
            or self._secrets
            or self._owner.blocked
            or any(channel.awaits_answer for channel in self.channels.values())
        ):
            self.driver.resume_reading()
        else:
            self.driver.pause_reading()

    def read(self) -> None:
        """Resume reading despite the holders: an answer or a confirm is outstanding."""
        self.driver.resume_reading()

    @property
    def is_open(self) -> bool:
        """Whether methods can be sent."""
        return self.core.state is ConnectionState.OPEN and not self.driver.is_closed

    async def wait_lost(self) -> None:
        """Wait until the socket is closed and the owner knows. Either side must have started to close."""
        await asyncio.wait((self._lost,))

    async def close(self, reason: ConnectionClosed, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Close in order: send connection.close, wait for close-ok, close the socket.

        If the broker does not answer within `timeout` seconds, the socket is closed without it. Cancelling closes the
        socket at once.
        """
        if self._lost.done():
            return
        if self._reason is None:
            self._reason = reason
        if self.is_open:
            self.send(0, ConnectionClose(Reply.SUCCESS, "Goodbye"))
        self._holders.clear()
        self.read()
        try:
            # Not `wait_for`, which in Python 3.11 loses a cancellation that arrives together with the result.
            await asyncio.wait((self._lost,), timeout=timeout)
        finally:
            self.driver.abort()
        await self._lost


def _tells_refusals(start: ConnectionStart) -> bool:
    capabilities = start.server_properties.get("capabilities")
    return isinstance(capabilities, dict) and capabilities.get("authentication_failure_close") is True


def _client_properties(own: Table) -> Table:
    from rabbitry._version import __version__  # importing the client needs no version

    return {
        "product": "Rabbitry",
        "version": __version__,
        "platform": f"Python {sys.version.split()[0]}",
        "information": "Apache-2.0",
        **own,
        "capabilities": CAPABILITIES,
    }


def _agree(ours: int | None, theirs: int, default: int) -> int:
    """Return the agreed limit: the smaller one, where 0 means no limit (section 4.2.2, connection.tune)."""
    ours = default if ours is None else ours
    return min(ours, theirs) if ours and theirs else ours or theirs or default


def _agree_heartbeat(ours: int | None, theirs: int) -> int:
    """Return the agreed heartbeat: the URL's, or else the broker's; 0 on either side means none."""
    if ours is None:
        return min(theirs, DEFAULT_HEARTBEAT)
    return min(ours, theirs) if theirs else ours


class Dialing:
    """The hosts of one connection and the credentials for them."""

    def __init__(
        self,
        url: BrokerURL,
        timeout: float,
        properties: Table,
        context: ssl.SSLContext | None,
        credentials: Credentials | None,
    ) -> None:
        """timeout: seconds for each host. properties, context: see `Link.open`. credentials: of `connect`."""
        self.url: BrokerURL = url
        """The broker's URL, with the password of the next login."""
        self._timeout = timeout
        self._properties = properties
        self._context = context
        self._credentials = credentials

    @property
    def label(self) -> str:
        """The broker's URL, without the password, and the connection's name if it has one; for the log."""
        name = self._properties.get("connection_name")
        return str(self.url) if name is None else f"{self.url} ({name})"

    async def new_link(self, owner: LinkOwner) -> Link:
        """Try the hosts in order until one accepts the connection.

        Raises ConnectFailed naming every host and cause; LoginRefused and VirtualHostRefused at once, since the other
        hosts of the same cluster would refuse too.
        """
        causes: list[str] = []
        url = await self._login()
        for host, port in self.url.hosts:
            link = Link(owner)
            try:
                async with asyncio.timeout(self._timeout):
                    await link.open(host, port, url, self._properties, self._context)
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

        Raises ConnectFailed if the `credentials` function raises or takes longer than the connection's timeout. A
        recovery then tries again, since the server that issues tokens may be down for a while.
        """
        if self._credentials is None:
            return self.url
        try:
            async with asyncio.timeout(self._timeout):
                answer = await asyncio.to_thread(self._credentials)  # it may request a token from a server
                user, password = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError as error:
            raise ConnectFailed(f"the credentials function returned nothing within {self._timeout} s") from error
        except Exception as error:
            raise ConnectFailed(f"the credentials function raised {type(error).__name__}: {error}") from error
        return self.url._replace(user=user, password=password)

    def replace_password(self, password: str) -> None:
        """Use another password for the next logins."""
        self.url = self.url._replace(password=password)
