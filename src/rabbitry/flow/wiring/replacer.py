"""Carrying out the steps of a replacement; see `replacing`. Each can be repeated, whatever interrupted it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from rabbitry.amqp.client import Channel, Connection
from rabbitry.exceptions import ChannelClosed, NotFound, PreconditionFailed, ResourceLocked
from rabbitry.flow.wiring import pausing
from rabbitry.flow.wiring.moving import NotMoved, catch, move, ready
from rabbitry.flow.wiring.pausing import pause_arguments, pause_queue
from rabbitry.flow.wiring.replacing import (
    DROPPING,
    PAUSED_BY,
    Bound,
    Replacement,
    Seen,
    Sight,
    Step,
    bindings_of,
    shadow,
)
from rabbitry.flow.wiring.topology import DELIVERY_LIMIT, ExchangeSpec, QueueSpec

_TRIES: Final = 20
"""How often a queue that got messages meanwhile is emptied again before it is deleted."""
_ROUNDS: Final = 5
"""How often what came meanwhile is moved before that."""
_LOOK: Final = 0.5
"""Seconds between two looks at who consumes a queue."""
STALE: Final = 12.0
"""Seconds by which RabbitMQ's figures of a queue may be late: it gathers them each five seconds, in two steps."""
_LOCK_PATIENCE: Final = 5.0
"""Seconds in which a broker notices that the connection of another run is gone."""
PATIENCE: Final = 120.0
"""Seconds that the consumers of a queue have to stop."""

Report = Callable[[Step, int], None]
"""Called before each step, with 0, and with the number of messages moved so far."""


class QueueReplacer:
    """The replacement of one queue.

    Args:
        connection: An open connection, which is not recovered.
        app: The app's name.
        sight: What the management API tells.
        replacement: The plan.
        report: Told of each step.
        patience: Seconds that the queue's consumers have to stop.
    """

    def __init__(
        self,
        connection: Connection,
        app: str,
        sight: Sight,
        replacement: Replacement,
        report: Report,
        patience: float = PATIENCE,
    ) -> None:
        assert isinstance(replacement.item, QueueSpec)  # noqa: S101 # an exchange has its own class; narrows the type
        self._connection = connection
        self._is_rabbitry = str(connection.server_properties.get("platform", "")).startswith("Rabbitry")
        self._app = app
        self._sight = sight
        self._item = replacement.item
        self._other = shadow(replacement.item.name)
        self._stage = replacement.stage
        self._queue = replacement.item.name
        self._steps = replacement.steps
        self._report = report
        self._patience = patience

    async def run(self) -> None:
        """Take all steps. Raises NotMoved, and what the broker refuses; nothing is lost then."""
        actions: dict[str, Callable[[Step], Coroutine[Any, Any, None]]] = {
            "pause": self._pause,
            "wait": self._wait,
            "shadow": self._declare_shadow,
            "move-out": lambda step: self._move(step, self._queue, self._other),
            "rebind-out": lambda step: self._rebind(step, self._queue, self._other),
            "swap": self._swap,
            "move-back": lambda step: self._move(step, self._other, self._queue),
            "rebind-back": lambda step: self._rebind(step, self._other, self._queue),
            "remove": self._remove,
            "resume": self._resume,
        }
        for step in self._steps:
            self._report(step, 0)
            await actions[step.action](step)

    async def _pause(self, _step: Step) -> None:
        assert self._stage is not None  # noqa: S101 # only replacements with a stage have this step; narrows the type
        name = pause_queue(self._app, self._stage)
        async with await self._connection.channel() as channel:
            try:
                await channel.declare_queue(name, passive=True)
            except NotFound:  # no worker has run yet, and one that starts now must find the pause
                await channel.open()
                await channel.declare_queue(name, durable=True, arguments=dict(pause_arguments(self._queue)))
        why = f"queue '{self._queue}' is being replaced"
        await pausing.pause(self._connection, self._app, self._stage, by=PAUSED_BY, why=why)

    async def _resume(self, _step: Step) -> None:
        assert self._stage is not None  # noqa: S101 # as for `_pause`
        with contextlib.suppress(pausing.NoSuchStage):
            found = await pausing.paused(self._connection, self._app, self._stage)
            if found is not None and found.by == PAUSED_BY:
                await pausing.resume(self._connection, self._app, self._stage)

    async def _wait(self, _step: Step) -> None:
        """Wait until the queue has no consumer, and after that no message in hand.

        The number of consumers comes over AMQP and is exact. That of the messages in hand may be late.
        """
        loop = asyncio.get_running_loop()
        until, free_since = loop.time() + self._patience, loop.time()
        while True:
            consumers = await self._consumers()
            seen = await self._sight.queue(self._queue)
            unsettled = 0 if seen is None else seen.unsettled
            if consumers or unsettled:
                free_since = loop.time()
            elif loop.time() - free_since >= (0.0 if self._is_rabbitry else STALE):
                return
            if loop.time() > until and (consumers or unsettled):
                raise NotMoved(
                    f"queue '{self._queue}' still has {consumers} consumers and {unsettled} messages in hand after "
                    f"{self._patience:g} s: stop the programs that consume it, and run the command again"
                )
            await asyncio.sleep(_LOOK)

    async def _consumers(self) -> int:
        async with await self._connection.channel() as channel:
            with contextlib.suppress(NotFound):
                return (await channel.declare_queue(self._queue, passive=True)).consumer_count
        return 0

    async def _declare_shadow(self, _step: Step) -> None:
        seen = await self._seen(self._queue)
        arguments: dict[str, Any] = {}
        if "quorum" in (seen.queue_type, self._item.arguments.get("x-queue-type")):
            arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
        # Messages may expire in the shadow, too.
        arguments |= {name: value for name, value in seen.arguments.items() if name.startswith("x-dead-letter-")}
        async with await self._connection.channel() as channel:
            try:
                await channel.declare_queue(self._other, passive=True)
            except NotFound:
                await channel.open()
                await channel.declare_queue(self._other, durable=True, arguments=arguments)
            policy = await self._policy()
            if found := [name for name in DROPPING if name in policy]:
                await channel.delete_queue(self._other)  # which nothing is published to yet
                raise NotMoved(f"a policy sets {found[0]} for queue '{self._other}', and messages would be lost there")

    async def _policy(self) -> Mapping[str, Any]:
        """Return what policies set for the shadow. RabbitMQ shows it with the first figures of a queue."""
        for _ in range(int(PATIENCE / _LOOK)):
            if (policy := (await self._seen(self._other)).policy) is not None:
                return policy
            await asyncio.sleep(_LOOK)
        raise NotMoved(f"the management API does not show which policies hold for queue '{self._other}'; try again")

    async def _seen(self, name: str) -> Seen:
        found = await self._sight.queue(name)
        if found is None:
            raise NotMoved(f"queue '{name}' is gone: somebody else deleted it; run the command again")
        return found

    async def _move(self, step: Step, source: str, target: str, *, is_rest: bool = False) -> None:
        """Move the messages that are there now, or all of the rest.

        A program that starts binds the queue again, and from then on both queues get its messages. Therefore the way
        back ends early if the queue is bound, and the rest is moved once its shadow is not.
        """
        seen = await self._seen(source)

        async def go_on(moved: int) -> bool:
            self._report(step, moved)
            return is_rest or target != self._queue or not await bindings_of(self._sight, self._queue)

        # What is published straight to the queue's name may come for ever: it is moved in rounds, and for what comes
        # after the last one the queue is not deleted, or it is caught then.
        for _ in range(_ROUNDS if is_rest else 1):
            if not (there := await ready(self._connection, source)):
                return
            await move(
                self._connection,
                source,
                target,
                most=there,
                size=seen.size,
                is_shared="x-single-active-consumer" in seen.arguments,
                go_on=go_on,
            )

    async def _rebind(self, step: Step, source: str, target: str) -> None:
        """Bind the target where the source is bound, unbind the source, and move what it got until then.

        Both requests of a binding are sent together, so that the messages that get into both queues are few.
        """
        async with await self._connection.channel() as channel:
            for one in await bindings_of(self._sight, source):
                arguments = dict(one.arguments)
                await asyncio.gather(
                    channel.bind_queue(target, one.source, one.key, arguments=arguments),
                    channel.unbind_queue(source, one.source, one.key, arguments=arguments),
                )
        await self._move(step, source, target, is_rest=True)

    async def _swap(self, step: Step) -> None:
        """Delete the queue once it is empty and declare it anew, with both requests sent together."""
        async with await self._connection.channel() as channel:
            for _ in range(_TRIES):
                seen = await self._sight.queue(self._queue)
                if seen is not None:
                    await self._rebind(step, self._queue, self._other)
                if await self._is_declared(channel, seen):
                    return
        raise NotMoved(
            f"queue '{self._queue}' gets messages as fast as they are moved, or is declared with other flags by "
            "another program each time: stop the programs that publish to it, and run the command again"
        )

    async def _is_declared(self, channel: Channel, seen: Seen | None) -> bool:
        item = self._item
        refused: list[ChannelClosed] = []

        async def declare() -> None:
            try:
                await channel.declare_queue(
                    item.name, durable=item.durable, auto_delete=item.auto_delete, arguments=dict(item.arguments)
                )
            except ChannelClosed as error:
                refused.append(error)

        try:
            if seen is None:
                await declare()
            elif not await self._delete(channel, self._queue, self._other, seen, declare):
                return False
        except ChannelClosed as error:
            refused.append(error)
        await channel.open()
        if other := [each for each in refused if not isinstance(each, PreconditionFailed)]:
            raise other[0]
        return not refused

    async def _delete(
        self,
        channel: Channel,
        name: str,
        target: str,
        seen: Seen,
        then: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> bool:
        """Delete a queue, and do `then`, sent behind the request if possible; False if it is not empty.

        Raises PreconditionFailed if it has messages or consumers. RabbitMQ knows no such condition for quorum queues:
        what one gets until it is deleted is moved to the target. It also lets the consumer that gets that go on with a
        queue of the same name, without a word: there `then` waits until the consumer has ended.
        """
        is_conditional = seen.queue_type != "quorum"
        is_joined = is_conditional or self._is_rabbitry

        async def delete() -> bool:
            deleting = channel.delete_queue(name, if_unused=is_conditional, if_empty=is_conditional)
            await asyncio.gather(deleting, *([then()] if then is not None and is_joined else []))
            return True

        if is_conditional:
            await delete()
            return True
        is_shared = "x-single-active-consumer" in seen.arguments
        if not await catch(self._connection, name, target, delete, is_shared=is_shared):
            return False
        if then is not None and not is_joined:
            await then()
        return True

    async def _remove(self, step: Step) -> None:
        async with await self._connection.channel() as channel:
            for _ in range(_TRIES):
                await self._rebind(step, self._other, self._queue)
                try:
                    if await self._delete(channel, self._other, self._queue, await self._seen(self._other)):
                        return
                except PreconditionFailed:
                    await channel.open()
        raise NotMoved(f"queue '{self._other}' gets messages: stop the programs that publish to it, and try again")


class ExchangeReplacer:
    """The replacement of one exchange; see QueueReplacer for the arguments."""

    def __init__(self, connection: Connection, sight: Sight, replacement: Replacement, report: Report) -> None:
        assert isinstance(replacement.item, ExchangeSpec)  # noqa: S101 # a queue has its own class; narrows the type
        self._connection = connection
        self._sight = sight
        self._item = replacement.item
        self._other = shadow(replacement.item.name)
        self._steps = replacement.steps
        self._report = report

    async def run(self) -> None:
        """Take all steps. Raises what the broker refuses."""
        for step in self._steps:
            self._report(step, 0)
            async with await self._connection.channel() as channel:
                if step.action == "shadow":
                    await channel.declare_exchange(self._other, self._item.type, durable=True)
                    await asyncio.gather(*self._bind(channel, self._other, await self._bound(self._item.name)))
                elif step.action == "swap":
                    await self._swap(channel)
                else:
                    await channel.delete_exchange(self._other)

    async def _bound(self, name: str) -> Sequence[Bound]:
        return await self._sight.bindings_of_exchange(name, as_source=True)

    async def _swap(self, channel: Channel) -> None:
        """Delete the exchange, declare and bind it anew, with all requests sent together."""
        item = self._item
        bound = await self._bound(self._other)
        is_right = len(self._steps) < len(("shadow", "swap", "remove"))
        await asyncio.gather(
            *([] if is_right else [channel.delete_exchange(item.name)]),
            channel.declare_exchange(item.name, item.type, durable=item.durable, auto_delete=item.auto_delete),
            *self._bind(channel, item.name, bound),
        )

    @staticmethod
    def _bind(channel: Channel, exchange: str, bound: Sequence[Bound]) -> list[Coroutine[Any, Any, None]]:
        return [
            (channel.bind_queue if one.is_queue else channel.bind_exchange)(
                one.destination, exchange, one.key, arguments=dict(one.arguments)
            )
            for one in bound
        ]


@contextlib.asynccontextmanager
async def alone(connection: Connection, app: str) -> AsyncIterator[None]:
    """Keep other runs of `apply` for this app away while the block runs, in which the plan is made too.

    With the plan of another run, a queue would be deleted that has its messages back. The lock is an exclusive queue,
    which goes with the connection.

    Raises:
        NotMoved: Another run is at work.
    """
    name, until = f"{app}.replacing", asyncio.get_running_loop().time() + _LOCK_PATIENCE
    async with await connection.channel() as channel:
        while True:
            try:
                await channel.declare_queue(name, exclusive=True)
                break
            except ResourceLocked:
                if asyncio.get_running_loop().time() > until:
                    raise NotMoved(
                        f"another `rabbitry topology apply` of app '{app}' is at work: wait until it has ended"
                    ) from None
            await asyncio.sleep(_LOOK)  # the connection of a run that was killed may still be there
            await channel.open()
        try:
            yield
        finally:
            if channel.is_open:
                await channel.delete_queue(name)


async def apply(
    connection: Connection,
    app: str,
    sight: Sight,
    replacement: Replacement,
    report: Report,
    patience: float = PATIENCE,
) -> None:
    """Carry out a replacement of the plan; see QueueReplacer.

    Raises:
        NotMoved: It can't be done now. Nothing was lost; a new plan begins where this one ended.
    """
    if replacement.problem:
        raise NotMoved(f"{replacement.what} can't be replaced: {replacement.problem}")
    if isinstance(replacement.item, QueueSpec):
        await QueueReplacer(connection, app, sight, replacement, report, patience).run()
    else:
        await ExchangeReplacer(connection, sight, replacement, report).run()
