"""The embedded broker: it listens, and holds what all connections share."""

import asyncio
import importlib
import json
import logging
import platform
import socket
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from rabbitry._installing import missing
from rabbitry._version import __version__
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker.access import PERMISSION, TOPIC_PERMISSION, USER, Access, initial_access
from rabbitry.broker.alarms import Alarms
from rabbitry.broker.config import BrokerConfig
from rabbitry.broker.connection import ClientConnection
from rabbitry.broker.counts import Churn
from rabbitry.broker.errors import ChannelRefusal, ConnectionRefusal
from rabbitry.broker.policies import POLICY, Policies, Policy
from rabbitry.broker.queues import Queue, ReplyTo
from rabbitry.broker.records import (
    BINDING,
    EXCHANGE,
    QUEUE,
    VHOST,
    key,
    queue_record,
    read_exchange,
    read_vhost,
    restore_binding,
    vhost_record,
)
from rabbitry.broker.shares import Shares
from rabbitry.broker.store.batch import DELETED, Contents, Unusable
from rabbitry.broker.store.journal import Journal
from rabbitry.broker.store.sqlite import SQLiteStore
from rabbitry.broker.vhost import VirtualHost
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.runtime.accepting import Acceptor, Visitor
from rabbitry.runtime.addresses import in_url
from rabbitry.runtime.listening import open_listeners

if TYPE_CHECKING:
    from rabbitry.broker.management.server import ManagementServer

_log = logging.getLogger(__name__)
_LONGEST_DISPATCH: Final = 0.02
"""Seconds after which dead letters that go from queue to queue wait for the others' turn."""
PARAMETER: Final = "global-parameter"
CLUSTER_NAME: Final = "cluster_name"
_MAKES_NO_SENSE: Final = (RabbitryError, ChannelRefusal, ConnectionRefusal, LookupError, ValueError, TypeError)
"""Errors raised by a record with invalid contents."""
_ACCESS: Final = (USER, PERMISSION, TOPIC_PERMISSION)
_ORDER: Final = (EXCHANGE, QUEUE, BINDING)
"""In which order records are restored: a binding needs its ends."""


class Broker:
    """An AMQP 0-9-1 broker with RabbitMQ's behaviour, in this process: an async context manager.

    Args:
        config: The settings; None takes the defaults.

    Raises:
        OSError: On entry: it can't listen there.
        StoreFailed: On entry: the data folder can't be used.
        UsageError: On entry: a package is missing that the management API needs.
    """

    def __init__(self, config: BrokerConfig | None = None) -> None:
        self.config = config = config or BrokerConfig()
        self.host = config.host
        self.port = config.port
        """The AMQP port that it listens on, once it does."""
        self.tls_port = config.tls_port
        self.management_port = config.management_port
        self._given = dict(config.users) if config.users is not None else None
        self.policies = Policies()
        self.access = initial_access(self._given or {"guest": "guest"}, config.vhosts)
        self.journal = Journal()
        self.parameters: dict[str, object] = {}
        """Global parameters: the cluster's name, and values that operators keep for their own tools."""
        self.churn = Churn()
        self.last_queue = 0
        self.vhosts = {name: VirtualHost(name, self) for name in config.vhosts}
        self._leaving: dict[str, Iterator[None]] = {}
        """Names of virtual hosts that are being deleted → the steps that are left."""
        self.nowhere = VirtualHost("", self)
        self.connections: set[ClientConnection] = set()
        self.dirty: dict[Queue | ReplyTo, None] = {}
        self.replies: dict[str, ReplyTo] = {}
        self.shares = Shares()
        self.started_at = time.time()
        """POSIX seconds."""
        self._dispatches_later = False
        self._failed: asyncio.Future[Exception] | None = None
        self.server_properties: dict[str, FieldValue] = dict(_server_properties())
        self._management: asyncio.Task[ManagementServer | None] | None = None
        self.alarms = Alarms(self, config.memory_limit, config.disk_free_limit)
        self.acceptor = Acceptor()
        self._is_open = False

    @property
    def url(self) -> str:
        """URL of the first virtual host, with the first user's name and password."""
        user, password = next(iter((self._given or {"guest": "guest"}).items()))
        vhost = next(iter(self.vhosts))
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{self.host}:{self.port}/{path}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self.started_at = time.time()
        config = self.config
        plain, encrypted = list(config.listeners), list(config.tls_listeners)
        management = list(config.management_listeners)
        try:
            if management or config.management_port is not None:
                _need_management()
            plain = plain or self._listen(config.port)
            if config.tls is not None:
                encrypted = encrypted or self._listen(config.tls_port)
            if config.management_port is not None:
                management = management or self._listen(config.management_port)
            if config.data is not None:
                await self._recover(config.data, plain[0].getsockname()[1])
        except BaseException:
            for listener in plain + encrypted + management:
                listener.close()
            raise
        self.port = plain[0].getsockname()[1]
        for listener in plain:
            self.acceptor.add(listener, self._serve)
        for listener in encrypted:
            self.tls_port = listener.getsockname()[1]
            self.acceptor.add(listener, self._serve, config.tls)
        self._is_open = True
        self.alarms.start()
        if management:
            self.start_management(management)
        return self

    def _listen(self, port: int) -> list[socket.socket]:
        return open_listeners(self.host, port)

    def _serve(self, visitor: Visitor) -> asyncio.BaseProtocol:
        return ClientConnection(self, visitor.leave).driver

    @property
    def has_tls(self) -> bool:
        """Whether it listens for TLS too."""
        return self.config.tls is not None

    @property
    def management_url(self) -> str:
        """URL of the management API. Raises UsageError where the broker has none, also since it could not be loaded."""
        if self.management_port is None:
            why = "could not load it, see its log" if self._management else "was started without management_port"
            raise UsageError(f"this broker has no management API: it {why}")
        return f"http://{in_url(self.host)}:{self.management_port}/"

    def start_management(self, where: int | list[socket.socket]) -> None:
        """Serve the management API on a port of the same host (0 takes a free one), or on sockets that listen.

        It accepts at once; what is asked there is answered as soon as the rest is loaded. Raises OSError where it
        can't listen, UsageError where the packages that it needs are not installed.
        """
        _need_management()
        listeners = self._listen(where) if isinstance(where, int) else where
        self.management_port = listeners[0].getsockname()[1]
        self._management = asyncio.create_task(self._start_management(listeners), name="management")

    async def _start_management(self, listeners: list[socket.socket]) -> "ManagementServer | None":
        """Load the management API and serve it; None where that failed, whatever the packages that it needs raise."""
        try:
            # A web framework takes a while to load; AMQP clients are served meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "rabbitry.broker.management.server")
            server: ManagementServer = module.ManagementServer(self, listeners)
            try:
                await server.start()
            except BaseException:
                await server.stop()
                raise
        # Its packages may raise anything while they are loaded; uvicorn calls sys.exit where it can't load something.
        except (Exception, SystemExit):  # noqa: BLE001 # see above
            _log.exception("the management API can't be loaded; the broker runs without it")
            for listener in listeners:
                self.acceptor.remove(listener)  # so that clients are refused at once
            self.management_port = None
            return None
        return server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: no new connections, each client is told (320) and has `close_timeout` to answer.

        What the management API raises while it stops is raised once all the rest is closed.
        """
        if not self._is_open:
            return
        try:
            await self._stop_management()
        finally:
            await self._close()

    async def _stop_management(self) -> None:
        if self._management is None:
            return
        server = await self._management
        self._management = None
        if server is not None:
            await server.stop()

    async def _close(self) -> None:
        await self.alarms.stop()
        await self.acceptor.close()
        connections = list(self.connections)
        for connection in connections:
            connection.hang_up(
                Reply.CONNECTION_FORCED, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
            )
        closed = [connection.closed for connection in connections]
        if closed:
            await asyncio.wait(closed, timeout=self.config.close_timeout)
        for connection in connections:
            connection.driver.abort()
        if closed:
            await asyncio.wait(closed)
        self._is_open = False
        self.shares.stop()
        for steps in list(self._leaving.values()):
            for _ in steps:
                pass
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.close()
        await self.journal.close()

    # -- what is durable -------------------------------------------------------------------------------

    async def _recover(self, folder: Path, port: int) -> None:
        """Open the store and make what it holds again."""
        address = f"amqp://{in_url(self.host)}:{port}/"
        store = SQLiteStore(folder, address)
        journal = Journal(store, on_failure=self.fail, on_full=self.alarms.set_full)
        contents = await journal.open()
        unusable = self._restore_access(journal, contents)
        for (kind, name), value in contents.records.items():
            if kind == POLICY:
                try:
                    self.policies.restore(value)
                except _MAKES_NO_SENSE as error:
                    unusable.append(Unusable(kind, name, _why(error)))
        self.policies.journal = journal
        for (kind, name), value in sorted(contents.records.items(), key=lambda record: _rank(record[0][0])):
            if kind in _ORDER:
                try:
                    self._restore_topology(kind, value)
                except _MAKES_NO_SENSE as error:
                    unusable.append(Unusable(kind, name, _why(error)))
        if unusable:
            await journal.set_aside(unusable)
        self.journal = journal
        deleted = {int(number) for kind, number in contents.records if kind == DELETED}
        for number in deleted:  # the process ended before all of it was
            self.last_queue = max(self.last_queue, number)
            journal.drop_queue(number)
        queues = {queue.id: queue for vhost in self.vhosts.values() for queue in vhost.queues.values()}
        for backlog in contents.backlogs:
            self.last_queue = max(self.last_queue, backlog.queue)
            if backlog.queue not in queues:
                if backlog.queue in deleted:
                    continue
                queues[backlog.queue] = self._adopt(backlog.queue, folder)
            queue = queues[backlog.queue]
            queue.recover(backlog.priority, backlog.messages, backlog.size, backlog.last_position)
            if not contents.clean:
                queue.recovered_to = max(queue.recovered_to, backlog.last_position)
        if not contents.clean:
            for queue in {number: queues[number] for number, *_ in contents.backlogs if number in queues}.values():
                journal.put(QUEUE, *queue_record(queue.vhost.name, queue))

    def _restore_topology(self, kind: str, value: Table) -> None:
        """Restore an exchange, a queue or a binding from its record."""
        name = str(value["vhost"])
        vhost = self.vhosts.get(name) or self.vhosts.setdefault(name, VirtualHost(name, self))
        if kind == EXCHANGE:
            exchange = read_exchange(value)
            exchange.policy = self.policies.matching(vhost.name, exchange.name, "exchanges")
            vhost.exchanges[exchange.name] = exchange
        elif kind == QUEUE:
            self.last_queue = max(self.last_queue, vhost.restore_queue(value).id)
        else:
            restore_binding(vhost, value)

    def _adopt(self, number: int, folder: Path) -> Queue:
        """Create a queue for messages whose queue has no record."""
        vhost = self.vhosts.get("/") or next(iter(self.vhosts.values()))
        name = f"rabbitry.recovered.{number}"
        while name in vhost.queues:
            name += "-"
        value: Table = {"name": name, "id": number, "auto_delete": False, "recovered_to": 0, "arguments": {}}
        queue = vhost.restore_queue(value)
        self.journal.put(QUEUE, *queue_record(vhost.name, queue))
        _log.error(
            "the store in %s is damaged: it has no record of the queue with number %d; its messages are in the queue "
            "%r of virtual host %r: move them to where they belong, then delete it",
            folder, number, name, vhost.name,
        )  # fmt: skip
        return queue

    def _restore_access(self, journal: Journal, contents: Contents) -> list[Unusable]:
        """Take users from the store, and add those that the broker starts with.

        A virtual host in which nobody may do anything yet is given to them too. Returns the records that can't be used.
        """
        unusable: list[Unusable] = []
        restored = Access()
        has_access = False
        for (kind, name), value in contents.records.items():
            try:
                if kind == VHOST:
                    read_vhost(self.vhosts.setdefault(str(value["name"]), VirtualHost(str(value["name"]), self)), value)
                elif kind == PARAMETER:
                    self.parameters[str(value["name"])] = json.loads(str(value["value"]))
                elif kind in _ACCESS:
                    has_access = True
                    restored.restore([(kind, value)])
            except _MAKES_NO_SENSE as error:
                unusable.append(Unusable(kind, name, _why(error)))
        self.server_properties["cluster_name"] = self.cluster_name
        initial = self.access
        self.access = restored
        known = dict(self.access.users)
        has_users = {vhost for vhost, _ in self.access.permissions}
        self.access.journal = journal
        for user in initial.users.values():
            # A password that is given holds. The default user stays as it was left: deleted, or with another password.
            if self._given is not None or not has_access:
                before = known.get(user.name, user)
                self.access.put_user(user.name, user.password_hash, before.tags)
        for (vhost, name), permission in initial.permissions.items():
            is_new = vhost not in has_users or name not in known
            if is_new and name in self.access.users:
                self.access.put_permission(vhost, name, permission)
        return unusable

    def add_vhost(self, name: str) -> None:
        """Make a virtual host; one that is there stays as it is."""
        if name not in self.vhosts:
            self.vhosts[name] = VirtualHost(name, self)
            self.vhost_changed(self.vhosts[name])

    def vhost_changed(self, vhost: VirtualHost) -> None:
        """Store the description, tags and limits of a virtual host."""
        if self.journal.is_on:
            self.journal.put(VHOST, key(vhost.name), vhost_record(vhost))

    @property
    def cluster_name(self) -> str:
        """The name of this broker for clients and operators: the global parameter cluster_name."""
        name = self.parameters.get(CLUSTER_NAME)
        return name if isinstance(name, str) else f"rabbitry@{platform.node()}"

    def put_parameter(self, name: str, value: object) -> None:
        """Set a global parameter to a JSON value; None clears it. The broker itself uses only cluster_name."""
        if value is None:
            self.parameters.pop(name, None)
        else:
            self.parameters[name] = value
        self.server_properties["cluster_name"] = self.cluster_name
        if self.journal.is_on:
            record: Table | None = None if value is None else {"name": name, "value": json.dumps(value)}
            self.journal.put(PARAMETER, key(name), record)

    def delete_user(self, name: str) -> None:
        """Delete a user; its connections are closed (320). Raises KeyError where there is none."""
        for _ in self.deleting_user(name):
            pass

    def deleting_user(self, name: str) -> Iterator[None]:
        """Delete a user at once, and close its connections in small steps that the caller has to take."""
        self.access.delete_user(name)
        found = [connection for connection in self.connections if connection.user == name]
        return _hanging_up(found, f"user '{name}' is deleted")

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; connections to it are closed (320)."""
        for _ in self.deleting_vhost(name):
            pass

    def deleting_vhost(self, name: str) -> Iterator[None]:
        """Delete a virtual host as `delete_vhost` does, in small steps that the caller has to take.

        No client can connect to it from now on, even before the first step. Closing the broker takes the steps that
        are left.
        """
        vhost = self.vhosts.pop(name)
        steps = self._leaving[name] = self._deleting_vhost(vhost)
        return steps

    def rest_of_deletion(self, name: str) -> Iterator[None]:
        """Return the steps that are left of a virtual host's deletion: to be taken before one of its name is made."""
        while name in self._leaving:
            yield from self._leaving[name]

    def _deleting_vhost(self, vhost: VirtualHost) -> Iterator[None]:
        name, access = vhost.name, self.access
        try:
            found = [connection for connection in self.connections if connection.vhost is vhost]
            yield from _hanging_up(found, f"vhost '{name}' is deleted")
            yield from vhost.clearing()
            for policy in self.policies:
                if policy.vhost == name:
                    self.policies.delete(name, policy.name)
                    yield
            for its_vhost, user in list(access.permissions):
                if its_vhost == name and (its_vhost, user) in access.permissions:
                    access.delete_permission(name, user)
                    yield
            for place in list(access.topic_permissions):
                if place[0] == name and place in access.topic_permissions:
                    access.delete_topic_permission(*place)
                    yield
            if self.journal.is_on:  # last, so that after a crash the virtual host is there with the rest of it
                self.journal.put(VHOST, key(name), None)
        finally:
            del self._leaving[name]

    def put_policy(self, policy: Policy) -> None:
        """Set a policy for existing and future queues and exchanges. Raises UsageError for an invalid one."""
        for _ in self.putting_policy(policy):
            pass

    def putting_policy(self, policy: Policy) -> Iterator[None]:
        """Set a policy at once, and apply it in small steps that the caller has to take. Raises UsageError."""
        self.policies.put(policy)
        return self.vhosts[policy.vhost].follow_policies(policy.name)

    def delete_policy(self, vhost: str, name: str) -> None:
        """Clear a policy. Raises KeyError where there is none."""
        for _ in self.deleting_policy(vhost, name):
            pass

    def deleting_policy(self, vhost: str, name: str) -> Iterator[None]:
        """Clear a policy at once, and apply that in small steps that the caller has to take. Raises KeyError."""
        self.policies.delete(vhost, name)
        return self.vhosts[vhost].follow_policies(name)

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done when the store failed for good, with why: the broker confirms nothing any more and has to end."""
        assert self._failed is not None  # noqa: S101 # there is one from the start on
        return self._failed

    def fail(self, error: Exception) -> None:
        """End what can't be durable any more: `failed` tells whoever runs the broker."""
        _log.critical("the broker ends: %s", error)
        if not self.failed.done():
            self.failed.set_result(error)

    # -- delivering ------------------------------------------------------------------------------------

    def touch(self, queue: Queue) -> None:
        """Note that a queue may have something to deliver."""
        self.dirty[queue] = None

    def dispatch(self) -> None:
        """Deliver from every queue that was touched, in that order.

        What goes from queue to queue as a dead letter goes on in later turns of the loop where it takes long.
        """
        ends_at = 0.0
        while self.dirty:
            touched, self.dirty = self.dirty, {}
            for queue in touched:
                queue.dispatch()
            if not self.dirty:
                return
            now = time.monotonic()
            if not ends_at:
                ends_at = now + _LONGEST_DISPATCH
            elif now > ends_at:
                self.dispatch_later()
                return

    def dispatch_later(self) -> None:
        """Deliver from every queue that was touched when it is the turn of what takes long."""
        if not self._dispatches_later:
            self._dispatches_later = True
            self.shares.wait(self._dispatch_on)

    def _dispatch_on(self) -> None:
        self._dispatches_later = False
        self.dispatch()


def _hanging_up(connections: Iterable[ClientConnection], why: str) -> Iterator[None]:
    """Close connections (320), one in each step."""
    for connection in connections:
        if not connection.closed.done():
            connection.hang_up(Reply.CONNECTION_FORCED, f"CONNECTION_FORCED - {why}")
        yield


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, RabbitryError) else f"{type(error).__name__}: {error}"


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _server_properties() -> Table:
    """What clients are told. They decide by product and version, so these are RabbitMQ's whose behaviour this has."""
    return {
        "capabilities": {
            "publisher_confirms": True,
            "exchange_exchange_bindings": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "consumer_priorities": True,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": True,
        },
        "cluster_name": f"rabbitry@{platform.node()}",
        "copyright": "Apache-2.0",
        "information": f"Rabbitry {__version__}, an embedded broker; not RabbitMQ",
        "platform": f"Rabbitry {__version__} on Python {platform.python_version()}",
        "product": "RabbitMQ",
        "version": "3.10.8",
    }


def _need_management() -> None:
    """Raise UsageError where a package is missing that the management API needs.

    It is loaded while it listens already, so a request would wait for an answer that never comes.
    """
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise UsageError(missing("the management API", ModuleNotFoundError(name=name), "broker"))
