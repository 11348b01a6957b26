"""The client for scripts: the same names without `await`, safe to use from many threads.

All of it runs on one I/O thread. What waits for an answer (declaring, `publish`, `get`) costs a turn of that
thread; what does not (`send`, `ack`, the next delivery) is handed over in batches (`benchmarks/blocking.py`).
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import queue
import ssl as _ssl
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, Self, TypeVar

from rabbitry.amqp.client._blocking_delivery import BlockingDelivery
from rabbitry.amqp.client._consumers import Consumers
from rabbitry.amqp.client._receipts import Failures, Receipt, raise_all
from rabbitry.amqp.client._transaction import Transaction
from rabbitry.amqp.client.channel import DEFAULT_PREFETCH, Channel
from rabbitry.amqp.client.connection import PUBLISH_TIMEOUT, REQUEST_TIMEOUT, Connection, Credentials, connect
from rabbitry.amqp.client.consuming import Consumer
from rabbitry.amqp.client.io_thread import IOThread
from rabbitry.amqp.client.publishing import as_body, header_too_large
from rabbitry.amqp.client.recovery import RecoveryEvent
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    PublishTimeout,
    RabbitryError,
    RequestTimeout,
    UsageError,
)

_UNSENT_MESSAGES: Final = 10_000
_UNSENT_BYTES: Final = 64 << 20
_INBOX_MESSAGES: Final = 10_000
_INBOX_BYTES: Final = 64 << 20
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _blocking(
    method: Callable[Concatenate[Channel, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate["BlockingChannel", _P], _R]:
    """Make a method of the blocking channel from the one of the same name that is awaited."""

    def call(self: "BlockingChannel", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self._io.run(method(self._channel, *args, **kwargs))

    return functools.update_wrapper(call, method)


class BlockingConsumer:
    """One consumer: a context manager, and an iterator over its deliveries.

    Leaving the block cancels the consumer and gives back what was not settled. The iteration raises
    ConsumerCancelled when the broker cancelled it, ChannelClosed or ConnectionClosed when its channel is gone.
    """

    def __init__(self, consumer: Consumer | Consumers, io: IOThread, channel: "BlockingChannel") -> None:
        """channel: the one it belongs to, which lives as long as its consumers."""
        self._consumer = consumer
        self._io = io
        self._channel = channel
        self._inbox: queue.SimpleQueue[BlockingDelivery | None] = queue.SimpleQueue()
        self._error: RabbitryError | None = None
        self._pump: asyncio.Task[None] | None = None
        self._may_go_on = asyncio.Event()
        self._is_held = False
        self._low = 0

    def __enter__(self) -> Self:
        self._io.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._io.is_running:  # else closed with its connection, or the parent process's
            self._io.run(self._stop(error))

    def cancel(self) -> None:
        """Stop consuming and give back what was not settled. Does nothing where it has ended already."""
        self._io.run(self._stop(None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BlockingDelivery:
        return self.next()

    def next(self, timeout: float | None = None) -> BlockingDelivery:
        """Wait for the next delivery, for `timeout` seconds (None: for ever).

        What waited here when the connection was lost is left out: it comes again. Raises RequestTimeout when
        none came, StopIteration when the consumer was cancelled here.
        """
        if self._pump is None:
            raise UsageError("iterate within `with channel.consume(…) as deliveries:`")
        deadline = None if timeout is None else time.monotonic() + timeout
        delivery = self._take(timeout)
        while delivery.is_lost and not self._consumer.no_ack:
            delivery = self._take(None if deadline is None else max(deadline - time.monotonic(), 0))
        return delivery

    def _take(self, timeout: float | None) -> BlockingDelivery:
        try:
            delivery = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise RequestTimeout(f"no delivery within {timeout} s") from None
        if self._is_held and self._inbox.qsize() <= self._low:
            self._is_held = False
            self._io.post(self._may_go_on.set)
        if delivery is None:
            self._inbox.put(None)  # for other threads, and for whoever asks again
            if self._error is None:
                raise StopIteration
            raise self._error.fresh() if isinstance(self._error, Closed) else self._error
        return delivery

    async def _start(self) -> None:
        await self._consumer.__aenter__()
        self._pump = asyncio.create_task(self._hand_over(), name=f"deliveries of {self._consumer.queue}")

    async def _stop(self, error: BaseException | None) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait((self._pump,))
        await self._consumer.__aexit__(None if error is None else type(error), error, None)

    async def _hand_over(self) -> None:
        inbox, io = self._inbox, self._io
        sizes: deque[int] = deque()  # of what is in the inbox, and of what was taken since the last look
        total = 0
        try:
            async for delivery in self._consumer:
                inbox.put(BlockingDelivery(delivery, io))
                size = len(delivery.body) + len(delivery.header)
                sizes.append(size)
                total += size
                if total < _INBOX_BYTES and len(sizes) < _INBOX_MESSAGES:
                    continue
                waiting = inbox.qsize()
                while len(sizes) > waiting:
                    total -= sizes.popleft()
                if total >= _INBOX_BYTES or waiting >= _INBOX_MESSAGES:
                    self._may_go_on.clear()
                    self._low = waiting // 2
                    self._is_held = True
                    # Whoever takes one after this line sees that the consumer is held; before it, so do we.
                    if inbox.qsize() > self._low:
                        await self._may_go_on.wait()
        except RabbitryError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it: nobody awaits this task
            self._error = ChannelClosed(0, f"the consumer of {self._consumer.queue!r} failed: {error!r}")
            self._error.__cause__ = error
        finally:
            inbox.put(None)


class _Room:
    """The room for more messages that wait to be sent. For any thread."""

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room for a message of `size` bytes; one that never fits waits until it is alone."""
        with self._changed:
            while self._messages >= _UNSENT_MESSAGES or (self._messages and self._bytes + size > _UNSENT_BYTES):
                self._changed.wait()
            self._messages += 1
            self._bytes += size

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        with self._changed:
            self._messages -= 1
            self._bytes -= size
            self._changed.notify()


class _Confirm(concurrent.futures.Future[None]):
    """The result of `send`. failure: why the message was not confirmed; reading it here is not a look."""

    failure: Exception | None = None
    _was_asked = False

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.failure = error
        self.set_exception(error)

    @property
    def is_unseen(self) -> bool:
        """Whether it has failed and nobody has asked for its result or exception since."""
        return self.failure is not None and not self._was_asked

    def result(self, timeout: float | None = None) -> None:
        try:
            super().result(timeout)
        finally:
            self._was_asked = self.done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        try:
            return super().exception(timeout)
        finally:
            self._was_asked = self.done()


class _Unsent(NamedTuple):
    """A message on its way to the I/O thread."""

    send: Callable[[], Coroutine[Any, Any, Receipt]]
    confirm: _Confirm
    size: int


class BlockingChannel:
    """A channel. Made by `BlockingConnection.channel`; a context manager that closes it.

    Its methods are those of the asyncio client's channel; each waits until it is done. Leaving its block without an
    error waits until all that was sent is confirmed, and raises what failed and nobody has looked at as one
    ExceptionGroup. Leaving it with an error closes at once.
    """

    def __init__(self, channel: Channel, io: IOThread, failures: Failures, owner: "BlockingConnection") -> None:
        """failures: of the connection's messages. owner: the connection, which lives as long as its channels."""
        self._channel = channel
        self._io = io
        self._failures = failures
        self._owner = owner
        self._unsent: deque[_Unsent | asyncio.Future[None]] = deque()
        """What is to be sent, and among it the futures of who waits until all before them is sent."""
        self._room = _Room()
        self._sending: asyncio.Task[None] | None = None
        self._checked: Properties | None = None

    def __repr__(self) -> str:
        return repr(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Else it was closed with its connection, which told of what was not confirmed, or is the parent process's.
        if self._io.is_running:
            self._io.run(self._leave(error))

    async def _leave(self, error: BaseException | None) -> None:
        if error is not None:
            await self._channel.__aexit__(type(error), error, None)
            return
        try:
            await self.settled()
        finally:
            await self._channel.close()
        raise_all(self._failures.take_unseen(self))

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self._channel.is_open

    @property
    def close_reason(self) -> Closed | None:
        """Why the channel is closed; None while it is open."""
        return self._channel.close_reason

    open = _blocking(Channel.open)
    close = _blocking(Channel.close)
    qos = _blocking(Channel.qos)
    declare_exchange = _blocking(Channel.declare_exchange)
    delete_exchange = _blocking(Channel.delete_exchange)
    bind_exchange = _blocking(Channel.bind_exchange)
    unbind_exchange = _blocking(Channel.unbind_exchange)
    declare_queue = _blocking(Channel.declare_queue)
    delete_queue = _blocking(Channel.delete_queue)
    purge_queue = _blocking(Channel.purge_queue)
    bind_queue = _blocking(Channel.bind_queue)
    unbind_queue = _blocking(Channel.unbind_queue)
    publish = _blocking(Channel.publish)

    def send(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> concurrent.futures.Future[None]:
        """Publish a message and return its future, which is done when the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`;
        UsageError is raised at once, the others come from the future, and from `wait_for_confirms`.
        """
        body = as_body(body)
        self._check_properties(properties)
        self._io.check()  # before anything waits to be sent, which then nobody would take
        self._room.take(len(body))
        confirm = _Confirm()
        send = functools.partial(
            self._channel.send_untracked, body, exchange, routing_key, properties, mandatory, timeout
        )
        self._unsent.append(_Unsent(send, confirm, len(body)))
        self._io.post(self._go_on_sending)
        return confirm

    def _check_properties(self, properties: Properties | None) -> None:
        """Refuse what can't be sent in the caller's thread, where the error belongs; the I/O thread would be late."""
        link = self._channel.connection.link
        if properties is None or properties is self._checked or link is None:
            return
        header = encode_header(properties, 0)
        if len(header) > link.core.frame_limit:
            raise header_too_large(header, link.core.frame_limit)
        # Headers are the one part that the caller can change in place.
        self._checked = properties if properties.headers is None else None

    def wait_for_confirms(self, *, timeout: float | None = None) -> None:
        """Wait until everything sent before is confirmed.

        Raises what failed since the last call as one ExceptionGroup, and PublishTimeout when `timeout`
        seconds (None: no limit but the messages' own) have passed.
        """
        self._io.run(self._confirmed(timeout))

    def get(self, queue: str, *, no_ack: bool = False, timeout: float | None = None) -> BlockingDelivery | None:
        """Take one message from a queue, or None where it is empty."""
        delivery = self._io.run(self._channel.get(queue, no_ack=no_ack, timeout=timeout))
        return None if delivery is None else BlockingDelivery(delivery, self._io)

    def consume(
        self,
        queue: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Table | None = None,
        restore: bool = False,
    ) -> BlockingConsumer:
        """Make a consumer of `queue`, to be entered with `with`, which starts it. See the asyncio client's."""
        consumer = self._channel.consume(
            queue, no_ack=no_ack, exclusive=exclusive, consumer_tag=consumer_tag, arguments=arguments, restore=restore
        )
        return BlockingConsumer(consumer, self._io, self)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Return a transaction, to be entered with `with`. See `Channel.transaction`."""
        transaction = self._channel.transaction()
        self._io.run(transaction.__aenter__())
        try:
            yield
        except BaseException as error:
            self._io.run(self._end_transaction(transaction, error))
            raise
        self._io.run(self._end_transaction(transaction, None))

    async def _end_transaction(self, transaction: Transaction, error: BaseException | None) -> None:
        await self._sent()  # `send` only queues: its messages belong to the transaction too
        await transaction.__aexit__(None if error is None else type(error), error, None)

    def consume_all(self, queues: Iterable[str], *, no_ack: bool = False, restore: bool = False) -> BlockingConsumer:
        """Return consumers of several queues as one context manager and iterator. See `Channel.consume_all`."""

        async def make() -> Consumers:  # in the I/O thread, whose loop they belong to
            return self._channel.consume_all(queues, no_ack=no_ack, restore=restore)

        return BlockingConsumer(self._io.run(make()), self._io, self)

    def abandon(self) -> None:
        """End the futures of what was never sent; for the connection, once its thread has ended."""
        while self._unsent:
            unsent = self._unsent.popleft()
            if isinstance(unsent, _Unsent):
                unsent.confirm.cancel()
                self._room.give_back(unsent.size)

    async def settled(self) -> None:
        """Wait until all that was handed over before is sent, and then confirmed or failed; for the connection."""
        await self._sent()
        await self._outcomes(None)

    async def _outcomes(self, timeout: float | None) -> None:
        """Wait until all that was sent before is confirmed or has failed, and `_failures` knows what failed."""
        await self._channel.window.wait_idle(timeout)
        # asyncio calls `_pass_on` in the turn of the loop after the outcome. Without a turn of our own here, an outcome
        # that came in this very turn would be missing from what is raised next.
        await asyncio.sleep(0)

    async def _sent(self) -> None:
        """Wait until all that was handed over before is sent. Other threads may go on sending for ever."""
        place: asyncio.Future[None] = self._io.loop.create_future()
        self._unsent.append(place)
        self._go_on_sending()
        await place

    def _go_on_sending(self) -> None:
        if self._unsent and (self._sending is None or self._sending.done()):
            self._sending = self._io.loop.create_task(self._send_all(), name="sending")

    async def _send_all(self) -> None:
        while self._unsent:
            unsent = self._unsent.popleft()
            if not isinstance(unsent, _Unsent):
                if not unsent.done():
                    unsent.set_result(None)
                continue
            send, confirm, size = unsent
            is_failed = False
            try:
                # From here on its owner can't cancel it any more, so that it is free to be set when the outcome comes.
                if confirm.set_running_or_notify_cancel():
                    sent = await send()
                    sent.add_done_callback(functools.partial(self._pass_on, confirm))
            except asyncio.CancelledError:
                self._fail(confirm, ConnectionClosed(0, "not sent: the connection was closed by this program"))
                raise
            except Exception as error:  # noqa: BLE001 - it is the caller's, and others wait behind
                self._fail(confirm, error)
                is_failed = True
            finally:
                self._room.give_back(size)
            if is_failed:
                # Nothing was awaited: a thread that goes on sending over what is closed would keep the loop to itself.
                await asyncio.sleep(0)

    def _pass_on(self, confirm: _Confirm, sent: asyncio.Future[None]) -> None:
        """Pass the outcome of a publish to the other thread."""
        error = sent.exception()
        if isinstance(error, Exception):
            self._fail(confirm, error)
        else:
            confirm.set_result(None)

    def _fail(self, confirm: _Confirm, error: Exception) -> None:
        confirm.fail(error)
        self._failures.add(self, confirm)

    async def _confirmed(self, timeout: float | None) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._sent()
        except TimeoutError as error:
            raise PublishTimeout(f"not all messages were sent within {timeout} s: the broker takes no more") from error
        left = None if timeout is None else max(timeout - (time.monotonic() - started), 0)
        await self._outcomes(left)
        raise_all(self._failures.take(self))


class BlockingConnection:
    """A connection to a broker. Made by `connect_blocking`; a context manager that closes it and ends its thread.

    Leaving its block without an error waits until all that was sent is confirmed, and raises what failed and nobody has
    looked at as one ExceptionGroup. Leaving it with an error closes at once; what was not confirmed is counted in the
    log. One that is dropped without `close` is closed, with a ResourceWarning.
    """

    def __init__(self, connection: Connection, io: IOThread) -> None:
        self._connection = connection
        self._io = io
        self._failures = Failures(io.loop, str(connection.url))
        self._channels: weakref.WeakSet[BlockingChannel] = weakref.WeakSet()
        """Touched in the I/O thread alone. What a channel has sent keeps it here until it is confirmed."""

    def __repr__(self) -> str:
        return repr(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        errors: ExceptionGroup[Exception] | None = None
        try:
            if error is None and self._io.is_running:
                errors = self._io.run(self._settled())
        finally:
            self.close()
        raise_all(errors)

    def __del__(self) -> None:
        if self._io.is_running:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, source=self, stacklevel=2)
            self._io.end_soon(functools.partial(_close_dropped, self._connection, self._failures))

    async def _settled(self) -> "ExceptionGroup[Exception] | None":
        for channel in list(self._channels):
            await channel.settled()
        return self._failures.take_unseen()

    @property
    def is_open(self) -> bool:
        """Whether channels can be used at this moment."""
        return self._connection.is_open

    @property
    def close_reason(self) -> Closed | None:
        """Why the connection is closed for good; None while it is not."""
        return self._connection.close_reason

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishers; None while it does not."""
        return self._connection.blocked

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """The broker's description of itself: product, version, capabilities and more."""
        return self._connection.server_properties

    def update_secret(self, secret: str, *, reason: str = "", timeout: float | None = None) -> None:
        """Replace the connection's password, such as an OAuth token. See `Connection.update_secret`."""
        self._io.run(self._connection.update_secret(secret, reason=reason, timeout=timeout))

    def channel(
        self, prefetch: int = DEFAULT_PREFETCH, *, confirms: bool = True, timeout: float | None = None
    ) -> BlockingChannel:
        """Open a channel. prefetch: how many unsettled deliveries each consumer may have (0: no limit).

        confirms: False lets `publish` and `send` return once a message is written; see `Connection.channel`.
        """
        return self._io.run(self._open_channel(prefetch, confirms, timeout))

    async def _open_channel(self, prefetch: int, confirms: bool, timeout: float | None) -> BlockingChannel:
        opened = await self._connection.channel(prefetch, confirms=confirms, timeout=timeout)
        channel = BlockingChannel(opened, self._io, self._failures, self)
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        """Close in order and end the I/O thread; what was not confirmed fails.

        Does nothing where it is closed, and in a child that fork made: the connection is the parent's.
        """
        if not self._io.is_running:
            return
        try:
            self._io.run(self._close())
        finally:
            self._io.stop()
            for channel in list(self._channels):
                channel.abandon()

    async def _close(self) -> None:
        try:
            await self._connection.close()
            for channel in list(self._channels):
                await channel.settled()  # at once: what is not sent yet fails as the rest did
        finally:
            self._failures.tell()


async def _close_dropped(connection: Connection, failures: Failures) -> None:
    """Close a connection whose owner dropped it, and tell of what was not confirmed."""
    await connection.close()
    await asyncio.sleep(0)  # failures are passed on in the turn of the loop after
    failures.tell()


def connect_blocking(
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
    declare: "Callable[[BlockingConnection], None] | None" = None,
    log_level: int = logging.WARNING,
    heartbeat: int | None = None,
    ssl: _ssl.SSLContext | None = None,
    credentials: Credentials | None = None,
    client_properties: Table | None = None,
) -> BlockingConnection:
    """Connect to a broker, for programs without an event loop: `with connect_blocking(url) as connection`.

    Arguments and errors are those of `connect`; `on_recovery` and `on_blocked` are called in the I/O thread, and
    `declare` in another one.
    """
    io = IOThread()
    made: list[BlockingConnection] = []

    def blocking(connection: Connection) -> BlockingConnection:
        if not made:
            made.append(BlockingConnection(connection, io))
        return made[0]

    async def declare_in_thread(connection: Connection) -> None:
        if declare is not None:
            await asyncio.to_thread(declare, blocking(connection))

    async def open_connection() -> Connection:
        return await connect(
            url,
            name=name,
            timeout=timeout,
            request_timeout=request_timeout,
            publish_timeout=publish_timeout,
            recover=recover,
            recovery_timeout=recovery_timeout,
            on_recovery=on_recovery,
            on_blocked=on_blocked,
            connect_attempts=connect_attempts,
            recovery_attempts=recovery_attempts,
            declare=None if declare is None else declare_in_thread,
            log_level=log_level,
            heartbeat=heartbeat,
            ssl=ssl,
            credentials=credentials,
            client_properties=client_properties,
        )

    try:
        return blocking(io.run(open_connection()))
    except BaseException:
        io.stop()
        raise
