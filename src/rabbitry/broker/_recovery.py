"""Restoring a broker's virtual hosts, users, policies, exchanges, queues and messages from its store."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import ChannelRefusal, ConnectionRefusal
from rabbitry.broker._parameters import PARAMETER, Parameters
from rabbitry.broker._policies import Policies
from rabbitry.broker._queues import Queue, Stream
from rabbitry.broker._queues.stream import SEGMENT, segment_key
from rabbitry.broker._queues.waiting import WaitingRoom
from rabbitry.broker._records import BINDING, EXCHANGE, QUEUE, VHOST, queue_record
from rabbitry.broker._store.batch import DELETED, Contents, StoredLane, Unusable
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import PERMISSION, TOPIC_PERMISSION, USER, Access
from rabbitry.exceptions import RabbitryError

_logger = logging.getLogger(__name__)
_INVALID: Final = (RabbitryError, ChannelRefusal, ConnectionRefusal, LookupError, ValueError, TypeError)
"""Errors raised by a record with invalid contents."""
_ACCESS: Final = (USER, PERMISSION, TOPIC_PERMISSION)
_SLICE: Final = 0.005
"""Seconds of each iteration of the event loop that restoring may take: the broker may share a loop."""
_T = TypeVar("_T")


class Recovery:
    """Restores a starting broker from the contents of its store.

    The objects that it fills are configured already, and no connections are accepted yet.

    Args:
        contents: The records of the store, and the number of messages of each queue.
        journal: The store's journal, which is open.
        folder: The data folder.
        access: The users that the broker starts with, and their permissions.
        parameters: The global parameters.
        policies: The policies, and the operator policies.
        vhosts: The virtual hosts, by name.
        new_vhost: Creates a virtual host.
        has_users: Whether users were configured, whose passwords then take precedence.
    """

    def __init__(  # noqa: PLR0913 - the state that it fills, each part by name
        self,
        contents: Contents,
        journal: Journal,
        folder: Path,
        *,
        access: Access,
        parameters: Parameters,
        policies: Sequence[Policies],
        vhosts: dict[str, VirtualHost],
        new_vhost: Callable[[str], VirtualHost],
        has_users: bool,
    ) -> None:
        self._contents = contents
        self._journal = journal
        self._folder = folder
        self._access = access
        self._parameters = parameters
        self._policies = policies
        self._vhosts = vhosts
        self._new_vhost = new_vhost
        self._has_users = has_users
        self._unusable: list[Unusable] = []
        self._ownerless: dict[int, list[tuple[int, int, float]]] = {}
        """Number of a stream without a record → the first offset, size and latest arrival of its segments."""

    async def run(self) -> None:
        """Restore everything; records that can't be used are set aside.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        await self._restore_access()
        for kind, restore in (
            *((policies.component, policies.restore) for policies in self._policies),
            (EXCHANGE, self._restore_exchange),
            (QUEUE, self._restore_queue),
            (SEGMENT, self._restore_segment),
            (BINDING, self._restore_binding),  # needs its ends
        ):
            await self._restore_each(kind, restore)
        if self._unusable:
            await self._journal.set_aside(self._unusable)
        await self._restore_backlogs()
        for vhost in self._vhosts.values():
            vhost.start_timers()

    async def _restore_each(self, kind: str, restore: Callable[[Table], None]) -> bool:
        """Restore the records of one kind, in slices. Return whether there are any, usable or not."""
        found = [(name, value) for (known, name), value in self._contents.records.items() if known == kind]
        async for name, value in _in_slices(sorted(found, key=lambda record: record[0])):
            try:
                restore(value)
            except _INVALID as error:
                why = str(error) if isinstance(error, RabbitryError) else f"{type(error).__name__}: {error}"
                self._unusable.append(Unusable(kind, name, why))
        return bool(found)

    # -- users, virtual hosts, parameters --------------------------------------------------------------

    async def _restore_access(self) -> None:
        """Restore users from the store, and add those that the broker starts with.

        These also get access to virtual hosts in which no user has permissions yet.
        """
        access = self._access
        initial_users, initial_permissions = access.clear()
        await self._restore_each(VHOST, self._restore_vhost)
        await self._restore_each(PARAMETER, self._parameters.restore)
        has_access = [await self._restore_each(kind, functools.partial(access.restore, kind)) for kind in _ACCESS]
        known = dict(access.users)
        entered = {vhost for vhost, _ in access.permissions}
        for user in initial_users.values():
            # A configured password takes precedence. The default user stays as it was left: deleted, or with another
            # password.
            if self._has_users or not any(has_access):
                before = known.get(user.name, user)
                access.put_user(user.name, user.password_hash, before.tags)
        for (vhost, name), permission in initial_permissions.items():
            is_new = vhost not in entered or name not in known
            if is_new and name in access.users:
                access.put_permission(vhost, name, permission)

    def _restore_vhost(self, value: Table) -> None:
        self._vhost(str(value["name"])).restore(value)

    def _vhost(self, name: str) -> VirtualHost:
        vhosts = self._vhosts
        return vhosts.get(name) or vhosts.setdefault(name, self._new_vhost(name))

    # -- exchanges, queues, bindings -------------------------------------------------------------------

    def _restore_exchange(self, value: Table) -> None:
        self._vhost(str(value["vhost"])).restore_exchange(value)

    def _restore_queue(self, value: Table) -> None:
        self._vhost(str(value["vhost"])).restore_queue(value)

    def _restore_segment(self, value: Table) -> None:
        """Restore a stream's segment, or keep its record for a stream whose own record is lost."""
        queue = self._vhost(str(value["vhost"])).queues.get(str(value["name"]))
        number, first, size, latest = (value[name] for name in ("queue", "first", "size", "latest"))
        if not (isinstance(number, int) and isinstance(first, int) and isinstance(size, int)):
            raise TypeError("its numbers are none")
        segment = (first, size, latest if isinstance(latest, float) else 0.0)
        if isinstance(queue, Stream) and queue.id == number:
            queue.restore_segment(*segment)
        else:
            self._ownerless.setdefault(number, []).append(segment)

    def _restore_binding(self, value: Table) -> None:
        self._vhost(str(value["vhost"])).restore_binding(value)

    # -- messages --------------------------------------------------------------------------------------

    async def _restore_backlogs(self) -> None:
        """Restore the numbers of the messages of all queues, in slices, and then begin to read the messages.

        A message that is read may be moved to another queue at once, which has to know its last position by then.
        """
        deleted = {int(number) for kind, number in self._contents.records if kind == DELETED}
        for number in deleted:  # the process ended before the deletion was complete
            self._journal.note_queue_number(number)
            self._journal.drop_queue(number)
        queues = {queue.id: queue for vhost in self._vhosts.values() for queue in vhost.queues.values()}
        exchanges = [exchange for vhost in self._vhosts.values() for exchange in vhost.exchanges.values()]
        queues |= {exchange.waiting.id: exchange.waiting for exchange in exchanges if exchange.waiting is not None}
        has_crashed = not self._contents.clean
        restored: list[tuple[Queue, StoredLane]] = []
        async for backlog in _in_slices(self._contents.backlogs):
            self._journal.note_queue_number(backlog.queue)
            if backlog.queue not in queues:
                if backlog.queue in deleted:
                    continue
                queues[backlog.queue] = self._adopt(backlog.queue)
            queue = queues[backlog.queue]
            queue.recover(backlog)
            if has_crashed:
                queue.recovered_to = max(queue.recovered_to, backlog.last_position)
            restored.append((queue, backlog))
        async for queue, backlog in _in_slices(restored):
            if has_crashed and not isinstance(queue, WaitingRoom):
                self._journal.put(QUEUE, *queue_record(queue.vhost.name, queue))
            queue.read_first(backlog, len(restored))
        for number, segments in self._ownerless.items():  # of streams that were deleted just before a crash
            for first, _, _ in segments:
                self._journal.put(SEGMENT, segment_key(number, first), None)

    def _adopt(self, number: int) -> Queue:
        """Create a queue for messages whose queue has no record."""
        vhosts = self._vhosts
        vhost = vhosts.get("/") or next(iter(vhosts.values()))
        name = f"rabbitry.recovered.{number}"
        while name in vhost.queues:
            name += "-"
        segments = self._ownerless.pop(number, [])
        arguments: Table = {"x-queue-type": "stream"} if segments else {}
        value: Table = {"name": name, "id": number, "auto_delete": False, "recovered_to": 0, "arguments": arguments}
        queue = vhost.restore_queue(value)
        if isinstance(queue, Stream):
            for segment in segments:
                queue.adopt_segment(*segment)
        self._journal.put(QUEUE, *queue_record(vhost.name, queue))
        _logger.error(
            "the store in %s is damaged: it has no record of the queue with number %d; its messages are in the queue "
            "%r of virtual host %r: move them to the right queue, then delete this one",
            self._folder, number, name, vhost.name,
        )  # fmt: skip
        return queue


async def _in_slices(items: Sequence[_T]) -> AsyncIterator[_T]:
    """Yield items, and let other tasks of the event loop run in between."""
    ends_at = time.monotonic() + _SLICE
    for item in items:
        if time.monotonic() > ends_at:
            await asyncio.sleep(0)
            ends_at = time.monotonic() + _SLICE
        yield item
