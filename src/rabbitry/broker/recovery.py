"""Restoring a broker's virtual hosts, users, policies, exchanges, queues and messages from its store."""

import json
import logging
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.access import PERMISSION, TOPIC_PERMISSION, USER, Access
from rabbitry.broker.errors import ChannelRefusal, ConnectionRefusal
from rabbitry.broker.policies import POLICY
from rabbitry.broker.queues import Queue
from rabbitry.broker.records import (
    BINDING,
    EXCHANGE,
    PARAMETER,
    QUEUE,
    VHOST,
    queue_record,
    read_exchange,
    read_vhost,
    restore_binding,
)
from rabbitry.broker.store.batch import DELETED, Contents, Unusable
from rabbitry.broker.store.journal import Journal
from rabbitry.broker.vhost import VirtualHost
from rabbitry.exceptions import RabbitryError

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker

_log = logging.getLogger(__name__)
_INVALID: Final = (RabbitryError, ChannelRefusal, ConnectionRefusal, LookupError, ValueError, TypeError)
"""Errors raised by a record with invalid contents."""
_ACCESS: Final = (USER, PERMISSION, TOPIC_PERMISSION)
_ORDER: Final = (EXCHANGE, QUEUE, BINDING)
"""In which order records are restored: a binding needs its ends."""


class Recovery:
    """Restores a broker that is about to start from the contents of its store.

    Args:
        broker: The broker, which has what its settings ask for and accepts no connections yet.
        journal: The journal of the store, which is open.
        contents: The records of the store, and how many messages each queue has there.
    """

    def __init__(self, broker: "Broker", journal: Journal, contents: Contents) -> None:
        self._broker = broker
        self._journal = journal
        self._contents = contents
        self._unusable: list[Unusable] = []

    async def run(self) -> None:
        """Restore everything; records that can't be used are set aside. Raises StoreFailed."""
        self._restore_access()
        self._restore_policies()
        self._restore_topology()
        if self._unusable:
            await self._journal.set_aside(self._unusable)
        self._broker.journal = self._journal
        for vhost in self._broker.vhosts.values():
            vhost.journal = self._journal
        self._restore_backlogs()

    # -- users, virtual hosts, parameters --------------------------------------------------------------

    def _restore_access(self) -> None:
        """Take users from the store, and add those that the broker starts with.

        A virtual host in which nobody may do anything yet is given to them too.
        """
        broker = self._broker
        restored = Access()
        has_access = False
        for (kind, name), value in self._contents.records.items():
            try:
                if kind == VHOST:
                    read_vhost(self._vhost(str(value["name"])), value)
                elif kind == PARAMETER:
                    broker.parameters[str(value["name"])] = json.loads(str(value["value"]))
                elif kind in _ACCESS:
                    has_access = True
                    restored.restore([(kind, value)])
            except _INVALID as error:
                self._leave_out(kind, name, error)
        broker.server_properties["cluster_name"] = broker.cluster_name
        initial, broker.access = broker.access, restored
        known = dict(restored.users)
        has_users = {vhost for vhost, _ in restored.permissions}
        restored.journal = self._journal
        for user in initial.users.values():
            # A password that is given holds. The default user stays as it was left: deleted, or with another password.
            if broker.config.users is not None or not has_access:
                before = known.get(user.name, user)
                restored.put_user(user.name, user.password_hash, before.tags)
        for (vhost, name), permission in initial.permissions.items():
            is_new = vhost not in has_users or name not in known
            if is_new and name in restored.users:
                restored.put_permission(vhost, name, permission)

    def _vhost(self, name: str) -> VirtualHost:
        vhosts = self._broker.vhosts
        return vhosts.get(name) or vhosts.setdefault(name, VirtualHost(name, self._broker))

    # -- policies, exchanges, queues, bindings ---------------------------------------------------------

    def _restore_policies(self) -> None:
        policies = self._broker.policies
        for (kind, name), value in self._contents.records.items():
            if kind == POLICY:
                try:
                    policies.restore(value)
                except _INVALID as error:
                    self._leave_out(kind, name, error)
        policies.journal = self._journal

    def _restore_topology(self) -> None:
        records = [record for record in self._contents.records.items() if record[0][0] in _ORDER]
        for (kind, name), value in sorted(records, key=lambda record: _ORDER.index(record[0][0])):
            try:
                self._restore(kind, value)
            except _INVALID as error:
                self._leave_out(kind, name, error)

    def _restore(self, kind: str, value: Table) -> None:
        """Restore an exchange, a queue or a binding from its record."""
        vhost = self._vhost(str(value["vhost"]))
        if kind == EXCHANGE:
            exchange = read_exchange(value)
            exchange.policy = self._broker.policies.matching(vhost.name, exchange.name, "exchanges")
            vhost.exchanges[exchange.name] = exchange
        elif kind == QUEUE:
            self._note_number(vhost.restore_queue(value).id)
        else:
            restore_binding(vhost, value)

    def _leave_out(self, kind: str, name: str, error: Exception) -> None:
        why = str(error) if isinstance(error, RabbitryError) else f"{type(error).__name__}: {error}"
        self._unusable.append(Unusable(kind, name, why))

    def _note_number(self, number: int) -> None:
        """Let queues declared from now on have higher numbers."""
        self._broker.last_queue = max(self._broker.last_queue, number)

    # -- messages --------------------------------------------------------------------------------------

    def _restore_backlogs(self) -> None:
        deleted = {int(number) for kind, number in self._contents.records if kind == DELETED}
        for number in deleted:  # the process ended before all of it was
            self._note_number(number)
            self._journal.drop_queue(number)
        queues = {queue.id: queue for vhost in self._broker.vhosts.values() for queue in vhost.queues.values()}
        has_crashed = not self._contents.clean
        restored: dict[int, Queue] = {}
        for backlog in self._contents.backlogs:
            self._note_number(backlog.queue)
            if backlog.queue not in queues:
                if backlog.queue in deleted:
                    continue
                queues[backlog.queue] = self._adopt(backlog.queue)
            queue = restored[backlog.queue] = queues[backlog.queue]
            queue.recover(backlog.priority, backlog.messages, backlog.size, backlog.last_position)
            if has_crashed:
                queue.recovered_to = max(queue.recovered_to, backlog.last_position)
        if has_crashed:
            for queue in restored.values():
                self._journal.put(QUEUE, *queue_record(queue.vhost.name, queue))

    def _adopt(self, number: int) -> Queue:
        """Create a queue for messages whose queue has no record."""
        vhosts = self._broker.vhosts
        vhost = vhosts.get("/") or next(iter(vhosts.values()))
        name = f"rabbitry.recovered.{number}"
        while name in vhost.queues:
            name += "-"
        value: Table = {"name": name, "id": number, "auto_delete": False, "recovered_to": 0, "arguments": {}}
        queue = vhost.restore_queue(value)
        self._journal.put(QUEUE, *queue_record(vhost.name, queue))
        _log.error(
            "the store in %s is damaged: it has no record of the queue with number %d; its messages are in the queue "
            "%r of virtual host %r: move them to where they belong, then delete it",
            self._broker.config.data, number, name, vhost.name,
        )  # fmt: skip
        return queue
