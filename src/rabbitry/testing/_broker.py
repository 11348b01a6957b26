"""The embedded broker for tests. It runs in a thread with its own event loop, so that any client can use it."""

from __future__ import annotations

import asyncio
import collections
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypedDict, TypeVar

import msgspec

from rabbitry._installing import missing
from rabbitry._words import counted, reason
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.compat import Compat
from rabbitry.broker.reading import Reason
from rabbitry.exceptions import UsageError
from rabbitry.runtime.listening import open_listeners
from rabbitry.testing._recording import Published, Recorder, Recording, Wanted, published, shown

T = TypeVar("T")
HOST: Final = "127.0.0.1"
_DEADLINE: Final = 60.0
_CLOSE_TIMEOUT: Final = 0.1
_LOOK: Final = 0.01
"""Seconds between two looks at a queue."""


class Settings(TypedDict, total=False):
    """The arguments of RunningBroker."""

    users: Mapping[str, str] | None
    vhosts: Sequence[str]
    definitions: str | Path | Mapping[str, object] | None
    tls: bool
    port: int
    data: str | Path | None
    compat: Compat


class RunningBroker:
    """An empty broker for one test, in memory, on a free port of 127.0.0.1. A context manager that can be entered once.

    The broker starts in about a millisecond. It runs in a thread with its own event loop, so blocking clients can use
    it, and the event loop of the test is not affected. Leaving the block closes the broker: clients that are still
    connected get a Close (320), and are disconnected a tenth of a second later. Errors of the broker itself (a callback
    or task of its loop that failed) are then raised as one group. The methods may be called from any thread; each waits
    until its work is done.

    Args:
        users: Name → password, for administrators; None has `guest` with the password `guest`.
        vhosts: The names of the virtual hosts; `url` names the first one.
        definitions: What is declared at the start: a file of RabbitMQ's definitions (`rabbitmqctl export_definitions`,
            `GET /api/definitions`), or its content as a mapping. Needs the extra `broker`.
        tls: Whether it listens for TLS too, with a certificate of its own for 127.0.0.1 and localhost that
            `client_context` trusts. Needs the extra `test`.
        port: The AMQP port; 0 takes a free one.
        data: A folder that keeps what is durable; None keeps everything in memory, and it is gone at the end.
        compat: The release of RabbitMQ whose behaviour it has: "3.10" or "4.0".
        debug: asyncio's debug mode for the broker's loop; None leaves it to Python (-X dev, PYTHONASYNCIODEBUG).

    Raises:
        UsageError: A setting is out of its range.
    """

    url: str
    """AMQP URL of its first virtual host, with the login of its first user (guest:guest)."""
    host: str
    port: int
    client_context: ssl.SSLContext
    """With `tls=True`: a context for clients that trusts the broker's certificate and no other."""
    ca_file: Path
    """With `tls=True`: a PEM file with the authority of the broker's certificate, for clients of other languages."""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = ("/",),
        definitions: str | Path | Mapping[str, object] | None = None,
        tls: bool = False,
        port: int = 0,
        data: str | Path | None = None,
        compat: Compat = "3.10",
        debug: bool | None = None,
    ) -> None:
        _check(users, vhosts, definitions, data)
        self._config = BrokerConfig(
            host=HOST,
            port=port,
            users=users,
            vhosts=vhosts,
            data=Path(data) if data is not None else None,
            tls_port=0,
            compat=compat,
            # This process's memory is mostly the tests', and the machine's share is for a broker of its own process.
            memory_limit=sys.maxsize,
            close_timeout=_CLOSE_TIMEOUT,
        )
        self.compat: Compat = compat
        """The release of RabbitMQ whose behaviour it has."""
        self._definitions = definitions
        self._has_tls = tls
        self._debug = debug
        self.recorder: Recorder = Recorder()
        """What clients published, for `Recording` and `Harness`."""
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: a test that was interrupted must not keep its process.
        self._thread = threading.Thread(target=self._run, name="rabbitry-broker", daemon=True)
        self._failures: list[BaseException] = []
        self._control = threading.RLock()
        """Held while it stops or starts: other threads see it before or after a restart, and stop it one by one."""
        self._alarms: list[Reason] = []
        """Those whose blocks are entered: a broker that starts meanwhile has them too."""
        self._broker: Broker
        self._stopped: Broker | None = None
        self._is_running = False

    def __enter__(self) -> Self:
        """Start the broker. Raises OSError if the port is not free, UsageError for definitions or packages."""
        if self._thread.ident is not None:
            raise UsageError("a RunningBroker can be entered once: make another one, or call restart()")
        with ExitStack() as stack:
            self.host, self.port = HOST, _hold(stack, self._config.port)
            self._management_port = _hold(stack, 0)
            self._config = replace(self._config, port=self.port)
            if self._has_tls:
                self._config = replace(self._config, tls_port=_hold(stack, 0))
                self._make_certificate(stack)
            self._thread.start()
            self._loop, self._ended = self._ready.result(_DEADLINE)
            stack.callback(self._end)
            self.start()
            stack.callback(self._stop_if_running)
            self._stack = stack.pop_all()
        self.url = self._broker.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._failures:
            raise BaseExceptionGroup("the embedded broker's event loop", self._failures)

    # -- stop, start, reset ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop it as RabbitMQ is stopped: clients are told (320), then the port refuses connections.

        Raises:
            UsageError: It is stopped already.
        """
        with self._control:
            self._need_running()
            self._is_running = False
            self._call(self._broker.__aexit__(None, None, None))
            self._stopped = self._broker

    def start(self) -> None:
        """Start it again on the same ports, with what a restart of RabbitMQ keeps.

        That is everything but transient messages, queues and exchanges.

        Raises:
            UsageError: It runs already.
        """
        with self._control:
            if self._is_running:
                raise UsageError("the broker runs already: stop it first, or call restart()")
            self._call(self._start())
            self._is_running = True

    def restart(self, *, keep: bool = True) -> None:
        """Stop it and start it again on the same ports.

        Args:
            keep: Whether what RabbitMQ keeps over a restart is there again; False begins anew, with the definitions.
        """
        with self._control:
            if not keep and self._config.data is not None:
                if not self._is_running:
                    self.start()  # only a running broker can delete what its folder keeps
                self._call(self._forget())
            if self._is_running:
                self.stop()
            if not keep:
                self._stopped = None
                self.recorder.clear()
            self.start()

    def reset(self) -> None:
        """Make it as it was at first, within milliseconds, for the next test: clients are told and cut off.

        Queues, exchanges, messages, users and all else are gone but for what the definitions declare, and nothing is
        recorded. Clients that are connected are told (320); one that does not answer takes a tenth of a second.
        """
        self.restart(keep=False)

    # -- faults ----------------------------------------------------------------------------------------

    def drop_connections(self, name: str | None = None) -> int:
        """Cut off clients without a word, as a network that fails. Return how many they were.

        Args:
            name: The `connection_name` that they gave (a client property); None means all.
        """
        return self._call(self._drop_connections(name))

    async def _drop_connections(self, name: str | None) -> int:
        return self._broker.drop_connections(name)

    @contextmanager
    def alarm(self, what: Literal["memory", "disk"] = "memory") -> Iterator[None]:
        """Raise an alarm while the block is entered: clients that publish are told (connection.blocked) and not read.

        A broker that is started again within the block has the alarm too.

        Raises:
            UsageError: `what` is another word.
        """
        if what not in ("memory", "disk"):
            raise UsageError(f"no alarm is called {what!r}: use 'memory' or 'disk'")
        alarm = Reason(what)
        self._call(self._raise_alarm(alarm))
        try:
            yield
        finally:
            self._call(self._end_alarm(alarm))

    async def _raise_alarm(self, alarm: Reason) -> None:
        self._alarms.append(alarm)
        self._broker.alarms.force(alarm, is_on=True)

    async def _end_alarm(self, alarm: Reason) -> None:
        self._alarms.remove(alarm)
        self._broker.alarms.force(alarm, is_on=alarm in self._alarms)

    # -- what was published, and what waits --------------------------------------------------------------

    def record(self, exchange: str, key: str = "#", *, vhost: str | None = None) -> Recording:
        """Record what clients publish from now on.

        Args:
            exchange: The exchange's name; `""` is the default one, for which the key is the queue's name.
            key: The routing key, or a pattern with `*` for one word and `#` for any number.
            vhost: The virtual host's name; None means the first one.
        """
        return Recording(self.recorder, self._vhost(vhost), exchange, key)

    def assert_published(
        self,
        *,
        exchange: str | None = None,
        routing_key: str | None = None,
        queue: str | None = None,
        json: object = ...,
        body: bytes | None = None,
        vhost: str | None = None,
        timeout: float = 1.0,
    ) -> Published:
        """Return the first message since the start or the last reset that is as expected.

        What is not given may be anything. Dead letters are published by the broker, and are in their queues only.

        Args:
            exchange: The exchange that it was published to.
            routing_key: Its routing key, or a pattern with `*` for one word and `#` for any number.
            queue: The name of a queue that took it.
            json: What its body is as JSON.
            body: Its body.
            vhost: Its virtual host; None means the first one.
            timeout: Seconds to wait for it: a client that does not wait for confirms may be still sending.

        Raises:
            AssertionError: There is none; the text shows what was published instead.
        """
        wanted = Wanted(
            vhost=self._vhost(vhost), exchange=exchange, routing_key=routing_key, queue=queue, json=json, body=body
        )
        found, seen = self.recorder.wait_for(wanted, 1, 0, timeout)
        if not found:
            raise AssertionError(f"no message was published with {wanted}; {shown(seen)}")
        return found[0]

    def queue(self, name: str, *, vhost: str | None = None) -> QueueView:
        """Return a view of a queue, which may be declared later."""
        return QueueView(self, name, self._vhost(vhost))

    def _vhost(self, name: str | None) -> str:
        return self._config.vhosts[0] if name is None else name

    def depths(self, *, vhost: str | None = None) -> dict[str, int]:
        """Return how many messages each queue has at this moment, ready or held by consumers.

        Args:
            vhost: The virtual host's name; None means the first one.
        """
        return self._call(self._depths(self._vhost(vhost)))

    async def _depths(self, vhost: str) -> dict[str, int]:
        self._need_vhost(vhost)
        return {name: queue.ready + queue.unsettled for name, queue in self._broker.vhosts[vhost].queues.items()}

    def _need_vhost(self, vhost: str) -> None:
        self._need_running()
        if vhost not in self._broker.vhosts:
            raise UsageError(f"there is no virtual host {vhost!r}; there are {', '.join(self._broker.vhosts)}")

    def waiting_in(self, name: str, vhost: str) -> list[Published]:
        """Return the messages that a queue has ready, for `QueueView`."""
        return self._call(self._waiting_in(name, vhost))

    async def _waiting_in(self, name: str, vhost: str) -> list[Published]:
        self._need_vhost(vhost)
        known = self._broker.vhosts[vhost]
        if name not in known.queues:
            declared = ", ".join(known.queues) or "none"
            raise UsageError(f"there is no queue {name!r} in virtual host {vhost!r}; the queues there: {declared}")
        return [published(vhost, entry.message, (name,)) for entry in known.queues[name].held()]

    # -- TLS and management ----------------------------------------------------------------------------

    @property
    def tls_url(self) -> str:
        """AMQPS URL, as `url`. Raises UsageError without `tls=True`."""
        if not self._has_tls:
            raise UsageError("this broker has no TLS: make it with RunningBroker(tls=True)")
        login, _, rest = self.url.removeprefix("amqp://").rpartition("@")
        path = rest.partition("/")[2]
        return f"amqps://{login}@{HOST}:{self._config.tls_port}/{path}"

    def _make_certificate(self, stack: ExitStack) -> None:
        try:
            import trustme
        except ModuleNotFoundError as error:
            raise UsageError(missing("TLS for tests", error, "test")) from error
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST, "localhost").configure_cert(server)
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client_context)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitry-")))
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self._config = replace(self._config, tls=server)

    @property
    def management_url(self) -> str:
        """URL of its management API, which is loaded when it is first asked for, with the logins of its users."""
        return self._call(self._manage())

    async def _manage(self) -> str:
        self._need_running()
        if self._broker.management_port is None:
            await self._broker.start_management(open_listeners(HOST, self._management_port))
            self._config = replace(self._config, management_port=self._management_port)
        return self._broker.management_url

    # -- the thread --------------------------------------------------------------------------------------

    def _call(self, steps: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the broker's loop, and return its result."""
        with self._control:
            try:
                self._need_block()
            except UsageError:
                steps.close()
                raise
            return asyncio.run_coroutine_threadsafe(steps, self._loop).result(_DEADLINE)

    def _need_block(self) -> None:
        if not self._thread.is_alive():
            state = "is not entered yet" if self._thread.ident is None else "has ended"
            raise UsageError(f"the broker {state}: use it within its block")

    def _stop_if_running(self) -> None:
        if self._is_running:
            self.stop()

    def _need_running(self) -> None:
        self._need_block()
        if not self._is_running:
            raise UsageError("the broker is stopped: call start() first")

    async def _start(self) -> None:
        kept = self._stopped if self._config.data is None else None
        self._broker = Broker(self._config, after=kept, on_publish=self.recorder.note)
        await self._broker.__aenter__()
        for alarm in self._alarms:
            self._broker.alarms.force(alarm, is_on=True)
        if self._stopped is None and self._definitions is not None:
            try:
                await self._declare(self._definitions)
            except BaseException:
                await self._broker.__aexit__(None, None, None)
                raise

    async def _declare(self, definitions: str | Path | Mapping[str, object]) -> None:
        try:
            from rabbitry.broker.definitions import import_definitions
        except ModuleNotFoundError as error:
            raise UsageError(missing("definitions", error, "broker")) from error
        if isinstance(definitions, Mapping):
            await import_definitions(self._broker, msgspec.json.encode(definitions), "definitions")
        else:
            try:
                content = await asyncio.to_thread(Path(definitions).read_bytes)
            except OSError as error:
                raise UsageError(f"can't read the definitions in {definitions}: {reason(error)}") from error
            await import_definitions(self._broker, content, str(definitions))

    async def _forget(self) -> None:
        """Delete all that the data folder keeps."""
        broker = self._broker
        for vhost in list(broker.vhosts):
            collections.deque(broker.deleting_vhost(vhost), maxlen=0)
        for user in list(broker.access.users):
            collections.deque(broker.deleting_user(user), maxlen=0)
        for name in list(broker.parameters.values):
            broker.parameters.put(name, None)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve(), debug=self._debug)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            if self._ready.done():
                self._failures.append(error)
            else:
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        ended = asyncio.Event()
        self._ready.set_result((loop, ended))
        await ended.wait()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._failures.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_DEADLINE)
        if self._thread.is_alive():
            raise TimeoutError(f"the embedded broker did not close within {_DEADLINE:g} s")


def _hold(stack: ExitStack, port: int) -> int:
    """Keep a port of the host, or a free one for 0, until `stack` ends: only who listens on it on purpose gets it.

    The socket is bound and never listens, so nobody gets the port by chance while the broker is stopped. The broker's
    socket has SO_REUSEADDR as well, with which two may be bound to a port as long as only one listens. On Windows no
    two may: the port is only looked for.
    """
    holder = stack.enter_context(socket.socket())
    if sys.platform != "win32":
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
    except OSError as error:
        raise OSError(error.errno, f"can't listen on {HOST} port {port}: {error.strerror}") from error
    held: int = holder.getsockname()[1]
    if sys.platform == "win32":
        holder.close()
    return held


class QueueView:
    """A queue of a test's broker, looked at from outside: nothing is taken, and nothing is marked as redelivered."""

    def __init__(self, broker: RunningBroker, name: str, vhost: str) -> None:
        self.name = name
        self._broker = broker
        self._vhost = vhost

    @property
    def messages(self) -> list[Published]:
        """The messages that are ready, in the order in which they would be delivered.

        Those that a consumer holds are not among them. With a data folder, at most 16,384 of each priority are shown.

        Raises:
            UsageError: The queue is not declared; the text names those that are.
        """
        return self._broker.waiting_in(self.name, self._vhost)

    def wait(self, count: int = 1, *, timeout: float = 10.0) -> list[Published]:
        """Wait until so many messages are ready, and return all that are.

        Raises:
            TimeoutError: There were fewer after `timeout` seconds.
            UsageError: The queue is not declared.
        """
        ends_at = time.monotonic() + timeout
        while len(messages := self.messages) < count:
            if time.monotonic() > ends_at:
                raise TimeoutError(
                    f"queue {self.name!r} has {counted(len(messages), 'message')} ready after {timeout:g} s, "
                    f"and {count} were expected"
                )
            time.sleep(_LOOK)
        return messages


def _check(users: object, vhosts: object, definitions: object, data: object) -> None:
    """Raise UsageError for a setting of a wrong type; others are checked by `BrokerConfig`."""
    if users is not None and not (isinstance(users, Mapping) and _are_text([*users, *users.values()])):
        raise UsageError("users must be a mapping of names to passwords, such as {'shop': 's3cret'}")
    if isinstance(vhosts, Sequence) and not isinstance(vhosts, str) and not _are_text(vhosts):
        raise UsageError(f"vhosts must be a list of names, not {vhosts!r}")
    if not (definitions is None or isinstance(definitions, str | Path | Mapping)):
        raise UsageError(f"definitions must be a file or a mapping, not {type(definitions).__name__}")
    if not (data is None or isinstance(data, str | Path)):
        raise UsageError(f"data must be a folder, not {type(data).__name__}")


def _are_text(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)
