"""The embedded broker: it listens, and owns the state that all connections use."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote

from rabbitry._installing import how_to_install, missing
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.broker._alarms import Alarms
from rabbitry.broker._connection import ClientConnection, Shared
from rabbitry.broker._counts import Churn
from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._overdue import Overdue
from rabbitry.broker._parameters import Parameters
from rabbitry.broker._policies import OPERATOR_POLICY, Policies, Policy
from rabbitry.broker._records import VHOST
from rabbitry.broker._recovery import Recovery
from rabbitry.broker._shares import Shares
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.schema import record_key
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker._succession import take_over_settings, take_over_vhosts
from rabbitry.broker._vhost import OnPublish, VirtualHost
from rabbitry.broker.access import Access, initial_access
from rabbitry.broker.config import GUEST, BrokerConfig
from rabbitry.broker.exceptions import ManagementFailed
from rabbitry.exceptions import UsageError
from rabbitry.runtime.accepting import Acceptor, Visitor
from rabbitry.runtime.addresses import in_url
from rabbitry.runtime.listening import open_listeners

_logger = logging.getLogger(__name__)
_LOOK: Final = 0.5
"""Seconds between two looks at whether the store still takes what is left to do."""


class Service(Protocol):
    """The management API, which uses the broker and is loaded only on demand."""

    async def start(self) -> None:
        """Start to serve."""

    async def stop(self) -> None:
        """Finish the requests in progress, and stop."""


class Broker:
    """An AMQP 0-9-1 broker with RabbitMQ's behaviour, in this process: an async context manager.

    Args:
        config: The settings; None for the defaults.
        after: A stopped broker that had no data folder. This one starts with the state that would have survived a
            restart: everything but transient messages, queues and exchanges. The stopped broker must not be used any
            more. on_publish: Called with each message that a client publishes, before it is delivered: the virtual
            host's name, the message, and its queues. An exception in it closes the client's connection.

    Entering it starts it: once the stored state is restored, it accepts connections. If a step fails, the steps before
    it are undone first: nothing listens, the data folder is free, and no task or thread is left.

    Raises:
        ManagementFailed: On entry: the management API can't be loaded.
        OSError: On entry: it can't listen there.
        StoreFailed: On entry: the data folder can't be used.
        UsageError: On entry: a package is missing that the management API needs.
    """

    def __init__(
        self,
        config: BrokerConfig | None = None,
        *,
        after: Broker | None = None,
        on_publish: OnPublish | None = None,
    ) -> None:
        config = config or BrokerConfig()
        self.config: BrokerConfig = config
        self.host: str = config.host
        self._on_publish = on_publish
        self._after = after
        self.port: int = config.port
        """The AMQP port that it listens on, once it does."""
        self.tls_port: int = config.tls_port
        self.management_port: int | None = config.management_port
        self._users = dict(config.users) if config.users is not None else {GUEST: GUEST}
        self.journal: Journal = Journal(on_failure=self.fail, on_full=lambda why: self.alarms.set_full(why))
        self.policies: Policies = Policies(self.journal, config.release)
        self.operator_policies: Policies = Policies(self.journal, config.release, OPERATOR_POLICY)
        self.access: Access = initial_access(self._users, config.vhosts, self.journal)
        self.parameters: Parameters = Parameters(self.journal)
        self.churn: Churn = Churn()
        self.shares: Shares = Shares()
        self.dispatcher: Dispatcher = Dispatcher(self.shares)
        self.vhosts: dict[str, VirtualHost] = {name: self._new_vhost(name) for name in config.vhosts}
        self._leaving: dict[str, Iterator[None]] = {}
        """Names of virtual hosts being deleted → the remaining steps."""
        self.connections: set[ClientConnection] = set()
        self.alarms: Alarms = Alarms(
            self.connections,
            self.journal,
            config.data,
            self.fail,
            memory_limit=config.memory_limit,
            disk_free_limit=config.disk_free_limit,
        )
        self._overdue = Overdue(self.connections, self.dispatcher, self.shares, config.release, config.consumer_timeout)
        self.shared: Shared = Shared(
            config=config,
            parameters=self.parameters,
            access=self.access,
            vhosts=self.vhosts,
            nowhere=self._new_vhost(""),
            connections=self.connections,
            journal=self.journal,
            dispatcher=self.dispatcher,
            shares=self.shares,
            replies={},
            alarms=self.alarms,
            churn=self.churn,
        )
        self.started_at: float = time.time()
        """POSIX seconds."""
        self.acceptor: Acceptor = Acceptor()
        self._failed: asyncio.Future[Exception] | None = None
        self._running = AsyncExitStack()
        """Callbacks that stop the broker, in the reverse order of its start."""

    @property
    def url(self) -> str:
        """URL of the first virtual host, with the first user's name and password."""
        user, password = next(iter(self._users.items()))
        vhost = next(iter(self.vhosts))
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{in_url(self.host)}:{self.port}/{path}"

    # -- start and stop --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        self.started_at = time.time()
        async with AsyncExitStack() as stack:  # undoes the finished steps if a later one fails
            await self._start(stack)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop accepting, close each connection with 320, and wait up to `close_timeout` for the clients' answers.

        Each step of the start is undone, the last one first. An error of one step is raised after the others are done.
        """
        await self._running.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        """Open the ports, restore the stored state, and accept. `stack` gets a callback to undo each step."""
        config = self.config
        given = (*config.listeners, *config.tls_listeners, *config.management_listeners)
        for listener in given:
            stack.callback(listener.close)
        has_management = bool(config.management_listeners) or config.management_port is not None
        if has_management:
            _need_management()
        plain = self._listen(stack, config.listeners, config.port)
        encrypted = self._listen(stack, config.tls_listeners, config.tls_port) if config.tls is not None else []
        management = self._listen(stack, config.management_listeners, config.management_port) if has_management else []
        self.port = plain[0].getsockname()[1]
        if config.data is not None:
            await self._open_store(stack, config.data)
        elif self._after is not None:
            before, self._after = self._after, None
            before.shares.finish()  # unsettled deliveries of its clients may still be returning to their queues
            take_over_settings(
                (before.access, before.parameters, before.policies, before.operator_policies),
                (self.access, self.parameters, self.policies, self.operator_policies),
            )
            take_over_vhosts(before.vhosts.values(), self.vhosts, self._new_vhost)
            for vhost in self.vhosts.values():
                for queue in vhost.queues.values():
                    self.dispatcher.touch(queue)
            self.dispatcher.dispatch()  # drops expired and excess messages, and starts the expiry timers
        stack.callback(self._close_queues)
        stack.callback(self._finish_deletions)
        stack.callback(self.shares.stop)
        if self.journal.is_on:
            stack.push_async_callback(self._finish_work)
        stack.push_async_callback(self._close_connections)
        stack.push_async_callback(self.acceptor.close)
        for listener in plain:
            self.acceptor.add(listener, self._serve)
        for listener in encrypted:
            self.tls_port = listener.getsockname()[1]
            self.acceptor.add(listener, self._serve, config.tls)
        self._overdue.start()
        stack.callback(self._overdue.stop)
        self.alarms.start()
        stack.push_async_callback(self.alarms.stop)
        if has_management:
            await self._start_management(stack, management)

    def _listen(self, stack: AsyncExitStack, given: Sequence[socket.socket], port: int | None) -> list[socket.socket]:
        """Return the given sockets, or new ones listening on a port of the host; None takes a free one."""
        if given:
            return list(given)
        try:
            listeners = open_listeners(self.host, port or 0)
        except OSError as error:
            why = (error.strerror or str(error)).partition(" (while")[0]  # `socket` repeats the address
            raise OSError(error.errno, f"can't listen on {self.host} port {port or 0}: {why}") from error
        for listener in listeners:
            stack.callback(listener.close)
        return listeners

    def _serve(self, visitor: Visitor) -> asyncio.BaseProtocol:
        return ClientConnection(self.shared, self.host, self.port, visitor.leave).driver

    async def _open_store(self, stack: AsyncExitStack, folder: Path) -> None:
        """Open the store and restore its contents; if that fails, close it unchanged."""
        journal = self.journal
        async with AsyncExitStack() as opening:
            contents = await journal.open(SQLiteStore(folder, f"amqp://{in_url(self.host)}:{self.port}/"))
            opening.push_async_callback(journal.give_back)
            opening.callback(self._close_queues)
            recovery = Recovery(
                contents,
                journal,
                folder,
                access=self.access,
                parameters=self.parameters,
                policies=(self.policies, self.operator_policies),
                vhosts=self.vhosts,
                new_vhost=self._new_vhost,
                has_users=self.config.users is not None,
            )
            await recovery.run()
            opening.pop_all()
        stack.push_async_callback(self._close_store)

    async def _close_store(self) -> None:
        """Close the store. If the stop was cut short, it has not recorded all deliveries."""
        is_cut_short = self.shares.is_working
        if is_cut_short:
            _logger.warning(
                "stopped before all unsettled deliveries were recorded: after the next start, all stored messages are "
                "marked redelivered"
            )
        await self.journal.close(is_complete=not is_cut_short)

    def _finish_deletions(self) -> None:
        for steps in list(self._leaving.values()):
            for _ in steps:
                pass

    def _close_queues(self) -> None:
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.close()
            for exchange in vhost.exchanges.values():
                if exchange.waiting is not None:
                    exchange.waiting.close()

    async def _close_connections(self) -> None:
        """Close each client's connection (320), and abort those without an answer after `close_timeout`."""
        connections = list(self.connections)
        for connection in connections:
            connection.hang_up(
                Reply.CONNECTION_FORCED, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
            )
        closed = [connection.closed for connection in connections]
        try:
            if closed:
                await asyncio.wait(closed, timeout=self.config.close_timeout)
        finally:
            for connection in connections:
                connection.driver.abort()
        if closed:
            await asyncio.wait(closed)

    async def _finish_work(self) -> None:
        """Wait for operations that clients have left: unsettled deliveries go back, and are stored as delivered.

        A client may have very many. If the store takes no more, it is not waited for.
        """
        while not (self.failed.done() or self.journal.is_stuck):
            try:
                return await asyncio.wait_for(self.shares.finished(), _LOOK)
            except TimeoutError:
                continue

    def drop_connections(self, name: str | None = None) -> int:
        """Abort connections without a close, as a failing network would. Return their number.

        Args:
            name: The clients' `connection_name` property; None for all.
        """
        dropped = [
            connection
            for connection in self.connections
            if name is None or connection.client_properties.get("connection_name") == name
        ]
        for connection in dropped:
            connection.driver.abort()
        return len(dropped)

    # -- the management API ----------------------------------------------------------------------------

    async def start_management(self, listeners: Sequence[socket.socket] | None = None) -> None:
        """Serve the management API until the broker stops.

        It accepts connections at once, and `management_url` is set; requests are answered once its packages are loaded.

        Args:
            listeners: Listening sockets, which the broker takes over; None for a free port of its host.

        Raises:
            ManagementFailed: It can't be loaded. The broker continues without it.
            OSError: It can't listen.
            UsageError: The packages that it needs are not installed.
        """
        async with AsyncExitStack() as begun:
            for listener in listeners or ():
                begun.callback(listener.close)
            _need_management()
            await self._start_management(begun, self._listen(begun, listeners or (), None))
            self._running.push_async_exit(begun.pop_all())

    async def _start_management(self, stack: AsyncExitStack, listeners: list[socket.socket]) -> None:
        self.management_port = listeners[0].getsockname()[1]
        async with AsyncExitStack() as starting:
            starting.callback(self._forget_management)
            try:
                # A web framework takes a while to load; AMQP clients are served meanwhile.
                module = await asyncio.to_thread(importlib.import_module, "rabbitry.broker._management.server")
                server: Service = module.ManagementServer(self, listeners)
                starting.push_async_callback(server.stop)
                await server.start()
            # Packages may raise anything while they are loaded; uvicorn calls sys.exit if it can't load something.
            except (Exception, SystemExit) as error:
                raise ManagementFailed(
                    f"can't load the management API ({type(error).__name__}: {error}): repair its packages "
                    f"({how_to_install('broker')}), or run the broker without it (--no-management)"
                ) from error
            stack.push_async_exit(starting.pop_all())

    def _forget_management(self) -> None:
        self.management_port = None

    @property
    def management_url(self) -> str:
        """URL of the management API. Raises UsageError if the broker has none."""
        if self.management_port is None:
            raise UsageError("this broker has no management API: it was started without management_port")
        return f"http://{in_url(self.host)}:{self.management_port}/"

    @property
    def has_tls(self) -> bool:
        """Whether it listens for TLS too."""
        return self.config.tls is not None

    # -- virtual hosts, users, policies, parameters -----------------------------------------------------

    def _new_vhost(self, name: str) -> VirtualHost:
        return VirtualHost(
            name,
            release=self.config.release,
            journal=self.journal,
            policies=(self.policies, self.operator_policies),
            dispatcher=self.dispatcher,
            shares=self.shares,
            churn=self.churn,
            on_publish=self._on_publish,
        )

    def add_vhost(self, name: str) -> None:
        """Create a virtual host unless it exists. A deletion of one with its name is completed first."""
        for _ in self.rest_of_deletion(name):
            pass
        if name not in self.vhosts:
            self.vhosts[name] = self._new_vhost(name)
            self.vhosts[name].store()

    def delete_user(self, name: str) -> None:
        """Delete a user; its connections are closed (320). Raises KeyError for an unknown user."""
        for _ in self.deleting_user(name):
            pass

    def deleting_user(self, name: str) -> Iterator[None]:
        """Delete a user at once, and close its connections (320) in small steps that the caller has to run.

        Raises:
            KeyError: The user does not exist.
        """
        self.access.delete_user(name)
        found = [connection for connection in self.connections if connection.user == name]
        return _hanging_up(found, f"user '{name}' is deleted")

    def deleting_vhost(self, name: str) -> Iterator[None]:
        """Delete a virtual host with its contents, in small steps that the caller has to run.

        Connections to it are closed (320). No client can connect to it from now on, even before the first step. Closing
        the broker runs the remaining steps.
        """
        vhost = self.vhosts.pop(name)
        steps = self._leaving[name] = self._deleting_vhost(vhost)
        return steps

    def rest_of_deletion(self, name: str) -> Iterator[None]:
        """Return the remaining steps of a virtual host's deletion, to be run before one of its name is created."""
        while name in self._leaving:
            for _ in self._leaving[name]:  # `yield from` would end the deletion if its waiter is cancelled
                yield

    def _deleting_vhost(self, vhost: VirtualHost) -> Iterator[None]:
        name, access = vhost.name, self.access
        try:
            found = [connection for connection in self.connections if connection.vhost is vhost]
            yield from _hanging_up(found, f"vhost '{name}' is deleted")
            yield from vhost.clearing()
            for policies in (self.policies, self.operator_policies):
                yield from policies.deleting_all(name)
            for its_vhost, user in list(access.permissions):
                if its_vhost == name and (its_vhost, user) in access.permissions:
                    access.delete_permission(name, user)
                    yield
            for place in list(access.topic_permissions):
                if place[0] == name and place in access.topic_permissions:
                    access.delete_topic_permission(*place)
                    yield
            if self.journal.is_on:  # last, so that after a crash the virtual host exists with the rest of it
                self.journal.put(VHOST, record_key(name), None)
        finally:
            del self._leaving[name]

    def putting_policy(self, policy: Policy, policies: Policies | None = None) -> Iterator[None]:
        """Set a policy at once, and apply it in small steps that the caller has to run. Raises UsageError.

        policies: `operator_policies` for one of these.
        """
        policies = policies or self.policies
        policies.put(policy)
        return self.vhosts[policy.vhost].follow_policies(policy.name, policies)

    def deleting_policy(self, vhost: str, name: str, policies: Policies | None = None) -> Iterator[None]:
        """Clear a policy at once, and apply the change in small steps that the caller has to run.

        Raises:
            KeyError: The policy does not exist.
        """
        policies = policies or self.policies
        policies.delete(vhost, name)
        return self.vhosts[vhost].follow_policies(name, policies)

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done, with the error, when the store has failed for good: the broker confirms nothing more and must stop."""
        assert self._failed is not None  # noqa: S101 # set when the broker starts
        return self._failed

    def fail(self, error: Exception) -> None:
        """Stop: nothing can be made durable any more. `failed` notifies the program that runs the broker."""
        _logger.critical("the broker stops: %s", error)
        if not self.failed.done():
            self.failed.set_result(error)


def _hanging_up(connections: Iterable[ClientConnection], why: str) -> Iterator[None]:
    """Close connections (320), one in each step."""
    for connection in connections:
        if not connection.closed.done():
            connection.hang_up(Reply.CONNECTION_FORCED, f"CONNECTION_FORCED - {why}")
        yield


def _need_management() -> None:
    """Raise UsageError if a package is missing that the management API needs.

    It is loaded after it started to listen, so a request would wait for an answer that never comes.
    """
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise UsageError(missing("the management API", ModuleNotFoundError(name=name), "broker"))
