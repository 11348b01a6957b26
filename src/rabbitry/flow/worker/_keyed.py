"""The messages of a stage with limits for each key, until their handler begins; see `rabbitry.flow.wiring.keys`.

Messages of one key wait in a lane, first for a slot, then for a token of the rate. A lane has a task for each lease
that it needs, and is gone when its last message has begun. While this worker holds a lease, it begins one message of
the key after the other; after a second it gives the lease back, so that the messages in other workers go on.

Messages that wait for their key take up places of the prefetch, and channels. Where all are taken, those that have
waited for a second, and would not begin soon, are returned to the end of the queue: a key of which thousands of
messages came holds up the others for a second for each prefetch of them, and not until it is done. The next ones of a
key stay in the worker that has its lease, so that it goes on, and where they wait for a channel, since it comes soon.
Those that the rate of their key lets begin in more than five minutes wait in a retry queue meanwhile: at the end of the
queue they would come again at once, and be published anew each second for as long as the backlog lasts.

Where the stage has limits of its own too, a message passes that of its key first: one that waited the other way around
would keep a slot or a token of the stage from all other keys. What a key has begun may then wait for the stage, and
begin in a shorter time than its rate says. Therefore only a few messages are on the way there at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rabbitry.amqp.client import Properties
from rabbitry.exceptions import ConnectionClosed, RabbitryError
from rabbitry.flow.codec import JSON
from rabbitry.flow.message import text_header
from rabbitry.flow.once import HANDLED
from rabbitry.flow.wiring.keys import (
    hashed,
    key_rate_arguments,
    key_rate_queue,
    key_slot_arguments,
    key_slot_queue,
)
from rabbitry.flow.wiring.rates import Minted, encode_minted, read_minted
from rabbitry.flow.worker._again import FAILURES, PAUSES
from rabbitry.flow.worker._executors.results import failed
from rabbitry.flow.worker._job import GIVEN_BACK, Job, Result, Work
from rabbitry.flow.worker._lanes import Lane, due, latest_state, used_up_to
from rabbitry.flow.worker._leases import waited
from rabbitry.flow.worker._scheduler import arrived, returned, settle
from rabbitry.flow.worker._waiting import PATIENCE, Waiting

if TYPE_CHECKING:
    from rabbitry.amqp.client import Channel, Connection, Consumer, Delivery, QueueInfo
    from rabbitry.flow._key_limit import KeyLimit
    from rabbitry.flow._rate import Rate
    from rabbitry.flow.message import Publication
    from rabbitry.flow.stage import Stage
    from rabbitry.flow.worker._settlement import Settler

WAITING: Final = 200
"""Messages beyond those that are handled at once for which a worker has room, since they wait for their keys."""
_BETWEEN: Final = 10
"""Messages that may have passed the limit of their key and wait for that of the stage. With fewer of them the highest
rate of a stage is not reached, since each one costs a transaction on the broker before."""
_TURN: Final = 1.0
"""Seconds after which a lease is given to the next worker that waits for it; and after which a message that waits may
be returned to the end of its queue."""
_LOOK: Final = 0.25
"""Seconds between two looks at messages that wait."""
_LATER: Final = Result("given-back", after=300.0)
"""It waits in the retry queue of five minutes. In a shorter one a long backlog would come again as fast as at the end
of its queue; in a longer one a message would wait too long if those before it were cancelled, or the rate was raised.
"""
_HELD_UP: Final = 5.0
"""Seconds for which the limits of the stage count as what holds up its messages, after as many as may last waited for
them. On a busy machine there are fewer for moments. To publish hundreds of messages anew each second, for others that
wait for the same limits, would make it busier still: 13 of 40 a second began."""
_AHEAD: Final = 1.0
"""Seconds by which the clock of the worker that used the last token may have been ahead of this one's."""
_LONGEST: Final = 30.0
"""Seconds of sleep after which the clock is looked at again: it may have been set."""
_MOST_STATES: Final = 100
"""States of a key that are read at once: there is one, but for tokens that were offered too early."""
_QUIET: Final = 60.0
"""Seconds after a warning of a key that failed in which other failures are logged at level DEBUG."""

_logger = logging.getLogger(__name__)


class Keyed:
    """The lanes of one stage in this worker; on the I/O thread. A message holds its slot until it is settled."""

    def __init__(  # noqa: PLR0913 - what the engine has, each a keyword
        self,
        app: str,
        stage: Stage,
        limit: KeyLimit,
        *,
        waits: bool,
        running: int,
        connections: Sequence[Connection],
        leases: Sequence[asyncio.Semaphore],
        settler: Settler,
        hand_over: Callable[[Job], None],
        report: Callable[[Work, Result], None],
        publish: Callable[[Publication], Awaitable[None]],
    ) -> None:
        """Create the lanes.

        Args:
            app: The app's name.
            stage: The stage.
            limit: Its limits.
            waits: Whether messages wait for their limits; otherwise their keys are only read.
            running: How many messages may be with the handlers at once.
            connections: The worker's connections for consuming and for publishing.
            leases: For each of them, how many leases may be waited for or held at once: each has a channel.
            settler: Settles messages that are returned.
            hand_over: Called with each message that may begin.
            report: Called with each message whose key can't be read, and its result.
            publish: Publishes a message over another connection; see `Slots`.
        """
        self._app = app
        self._stage = stage
        self._limit = limit
        self._waits = waits
        self._left = running
        """How many more messages may be handed over. `_room` is set while more may be, and may be on their way."""
        self._gap = running
        """How many more may be on their way through the limits of the stage."""
        self._between: set[Job] = set()
        """Those that are."""
        self._held_up = -math.inf
        """Time on the monotonic clock at which as many as may last waited for the limits of the stage."""
        self._through: Callable[[Job], None] = self.pass_on
        self._room = asyncio.Event()
        self._room.set()
        self._consuming, self._publishing = connections
        self._slot_leases, self._rate_leases = leases
        self._settler = settler
        self._hand_over = hand_over
        self._report = report
        self._publish = publish
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        """What a task failed with."""
        self._is_over = False
        self._lanes: dict[str, Lane] = {}
        self._unread: deque[Job] = deque()
        """Messages whose key is not read yet."""
        self._came = asyncio.Event()
        """Set when there is something for `run` to do."""
        self._begun: set[Job] = set()
        """Those that were handed over, and are not settled."""
        self._ends: dict[Job, asyncio.Event] = {}
        """Those that hold a slot, with the event of each that it is settled."""
        self._is_closed = False
        self._warns_from = 0.0
        """Time on the monotonic clock from which on a key that fails is told in a warning."""
        self.is_full: Callable[[], bool] = lambda: False
        """Returns whether the prefetch is used up. Set once there is a consumer."""

    # -- messages --------------------------------------------------------------------------------------

    def lead_through(self, take: Callable[[Job], None]) -> None:
        """Let messages go on to the limits of the stage, which then calls `pass_on`. Call it before there are any."""
        self._through, self._gap = take, _BETWEEN

    def pass_on(self, job: Job) -> None:
        """Hand over a message that has passed all limits."""
        self._has_passed(job)
        self._hand_over(job)

    def waiting(self) -> int:
        """Return how many messages wait for their key."""
        return sum(map(len, self._all_waiting()))

    def take(self, job: Job) -> None:
        """Keep a message until its key is read and it may begin."""
        if self._is_closed:
            self._settler.finish(job, GIVEN_BACK)
            return
        self._unread.append(job)
        self._came.set()

    def close(self) -> None:
        """Return the messages that wait, and later ones as they arrive."""
        self._is_closed = True
        while self._unread:
            self._settler.finish(self._unread.popleft(), GIVEN_BACK)
        for each in self._all_waiting():
            each.close()

    def open(self) -> None:
        """Take messages again."""
        self._is_closed = False
        for each in self._all_waiting():
            each.open()

    def sweep(self) -> None:
        """Leave out the messages of a lost connection, which come again, and those that are not to be handled."""
        for each in self._all_waiting():
            each.sweep()

    def settled(self, job: Job) -> None:
        """Note that a message is settled."""
        self._has_passed(job)
        if job in self._begun:
            self._begun.discard(job)
            self._left += 1
            self._note_room()
        if (event := self._ends.pop(job, None)) is not None:
            event.set()

    def _all_waiting(self) -> list[Waiting]:
        return [each for lane in self._lanes.values() for each in lane.waiting]

    async def run(self) -> NoReturn:
        """Pass messages on until cancelled. Raises ConnectionClosed if a connection is closed for good."""
        self._spawn(self._watch())
        try:
            while True:
                await self._came.wait()
                self._came.clear()
                if self._error is not None:
                    raise self._error
                jobs, self._unread = list(self._unread), deque()
                # In a thread, since it runs code of the app, which may take its time.
                for job, key in zip(jobs, await asyncio.to_thread(self._keys_of, jobs), strict=True):
                    self._file(job, key)
        finally:
            self._is_over = True
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that `run` owns."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._came.set()

    def _keys_of(self, jobs: list[Job]) -> list[str | Result | None]:
        return [self._key_of(job) for job in jobs]

    def _key_of(self, job: Job) -> str | Result | None:
        """Return the key of a message, hashed; None if it has no limit, or the result if the function failed."""
        try:
            if self._stage.takes is not None and text_header(job.message().headers, HANDLED) is not None:
                return None  # the stage's own note
            codec = self._stage.value_codec
            content_type = job.message().content_type if codec.needs_content_type else None
            value = codec.decode(job.body, content_type)
        except Exception:  # noqa: BLE001 - its handler is not called, and tells
            return None
        try:
            key = self._limit.key_of(value)
            return None if key is None else hashed(str(key))
        except Exception as error:  # noqa: BLE001 - told in the log, and in the message's attempts
            return failed(error)

    def _file(self, job: Job, key: str | Result | None) -> None:
        """Let a message wait for its key."""
        if self._is_closed:
            self._settler.finish(job, GIVEN_BACK)
        elif isinstance(key, Result):
            self._report(job, key)
        elif key is None or not self._waits:
            self._through(job)
        else:
            lane = self._lanes.get(key) or self._new_lane(key)
            self._wait_in(lane.waiting[0], job)
            self._serve(lane)

    def _wait_in(self, waiting: Waiting, job: Job) -> None:
        """Let a message wait: before the others if it is a suspect, of which one is here and the others wait for it."""
        if job.is_suspect and not self._is_closed:
            waiting.put_back(job)
        else:
            waiting.take(job)

    def _new_lane(self, key: str) -> Lane:
        tokens = None if self._limit.rate is None else Waiting(self._settler, self._begin)
        slots = None if self._limit.total is None else Waiting(self._settler, self._begin)  # see `_handle_in_slot`
        lane = self._lanes[key] = Lane(key, slots, tokens)
        return lane

    def _reserve(self, number: int) -> None:
        """Take room for so many messages; with a negative number, return it."""
        self._left -= number
        self._gap -= number
        self._note_room()

    @property
    def _free(self) -> int:
        """How many messages may begin now."""
        return min(self._left, self._gap)

    def _note_room(self) -> None:
        if self._free > 0:
            self._room.set()
            return
        self._room.clear()
        if self._between:
            self._held_up = time.monotonic()

    def _begin(self, job: Job) -> None:
        """Let a message go on for which room was reserved."""
        self._begun.add(job)
        self._between.add(job)
        self._through(job)

    def _has_passed(self, job: Job) -> None:
        """Note that a message is no longer on its way through the limits of the stage."""
        if job in self._between:
            self._between.discard(job)
            self._gap += 1
            self._note_room()

    async def _watch(self) -> NoReturn:
        """Return messages that have waited too long, until cancelled."""
        rate = self._limit.rate
        keep = self._limit.total or (1 if rate is None else rate.burst)
        while True:
            await asyncio.sleep(_LOOK)
            self.sweep()
            now = time.monotonic()
            is_full = self.is_full() or self._slot_leases.locked() or self._rate_leases.locked()
            self._note_room()
            if now - self._held_up < _HELD_UP:
                is_full = False  # they wait for the limit of the stage, as any others would that came in their place
            for lane in self._lanes.values():
                for each in lane.waiting:
                    each.give_back(now - PATIENCE)
                    if is_full:
                        if rate is not None:
                            each.give_back(now - _TURN, behind=_soon(rate), result=_LATER)
                        each.give_back(now - _TURN, behind=keep if lane.is_served else 0)
                    each.give_back_suspect(now - _TURN)
                for task, waiting in lane.idle.items():
                    if not len(waiting):
                        task.cancel()

    # -- leases ----------------------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        """Start the tasks that a lane needs."""
        total = self._limit.total
        if total is not None and lane.slots is not None:
            while lane.serving < min(total, lane.running + len(lane.slots)):
                lane.serving += 1
                work = partial(self._hold_slot, lane, lane.slots, total)
                self._spawn(self._again(lane, lane.slots, work, self._consuming, is_slot=True))
        rate = self._limit.rate
        if rate is not None and lane.tokens is not None and len(lane.tokens) and not lane.is_metered:
            lane.is_metered = True
            meter = partial(self._spend, lane, lane.tokens, rate)
            self._spawn(self._again(lane, lane.tokens, meter, self._publishing, is_slot=False))

    async def _again(
        self,
        lane: Lane,
        waiting: Waiting,
        work: Callable[[], Awaitable[None]],
        connection: Connection,
        *,
        is_slot: bool,
    ) -> None:
        """Do `work` while messages wait, after a pause if it failed. For cancelling see `_waiting_for_lease`."""
        failures = 0
        try:
            while waiting.count():
                try:
                    await work()
                    failures = 0
                except FAILURES as error:
                    if connection.close_reason is not None:
                        raise connection.close_reason from error
                    failures += 1
                    pause = PAUSES.pause(failures)
                    self._log(error, pause, connection)
                    await asyncio.sleep(pause)
        finally:
            if is_slot:
                lane.serving -= 1
            else:
                lane.is_metered = False
            if not self._is_over:
                self._leave(lane)

    def _log(self, error: Exception, pause: float, connection: Connection) -> None:
        """Log that a key failed, after which it pauses; as a warning now and then, since all keys may fail together."""
        now = time.monotonic()
        level = logging.DEBUG
        if connection.is_open and now >= self._warns_from:  # a connection that is lost tells of it itself
            level = logging.WARNING
            self._warns_from = now + _QUIET
        text = "app '%s', a key of stage '%s': %s; trying again in %.1f s (more such warnings only after %.0f s)"
        _logger.log(level, text, self._app, self._stage.name, error, pause, _QUIET)

    def _leave(self, lane: Lane) -> None:
        """Forget a lane that no message and no task needs. One that came while a task was cancelled needs another."""
        if any(len(each) for each in lane.waiting):
            self._serve(lane)
        elif not lane.serving and not lane.is_metered:
            del self._lanes[lane.key]

    @contextlib.asynccontextmanager
    async def _waiting_for_lease(self, lane: Lane, waiting: Waiting) -> AsyncIterator[None]:
        """Let `_watch` cancel the task within the block when no message wants its lease any more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 # narrows the type
        lane.idle[task] = waiting
        try:
            yield
        finally:
            del lane.idle[task]

    async def _hold_slot(self, lane: Lane, waiting: Waiting, total: int) -> None:
        """Wait for a slot of a key, and handle messages in it."""
        loop = asyncio.get_running_loop()
        if lane.tokens is None:
            await self._wait_for_room()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._slot_leases)
            if not waiting.count():
                return
            async with self._waiting_for_lease(lane, waiting):
                channel = await stack.enter_async_context(await self._consuming.channel(prefetch=1))
                place, info = await self._free_place(channel, lane, total)
                stack.callback(lane.places.discard, place)
                try:
                    # With several slots another one may become free first.
                    async with asyncio.timeout(_TURN if total > 1 else None):
                        _, token = await waited(channel, info.name, self._publish, is_unused=_is_unused(info))
                except TimeoutError as error:
                    if isinstance(error, RabbitryError):
                        raise
                    return
            until = loop.time() + _TURN
            while loop.time() < until:
                if lane.tokens is None and not await self._has_room(channel, info.name):
                    return
                if token.is_lost or (job := waiting.next()) is None:
                    return
                await self._handle_in_slot(lane, job)

    async def _wait_for_room(self) -> None:
        """Wait until a message may be handed over."""
        while self._free <= 0:  # another task that was woken may have taken the room
            await self._room.wait()

    async def _has_room(self, channel: Channel, queue: str) -> bool:
        """Wait for room while this worker has a lease; return False if another worker waits for the lease meanwhile."""
        while self._free <= 0:
            try:
                async with asyncio.timeout(_TURN):
                    await self._room.wait()
            except TimeoutError:
                if (await channel.declare_queue(queue, passive=True)).consumer_count > 1:
                    return False
        return True

    async def _handle_in_slot(self, lane: Lane, job: Job) -> None:
        """Let a message go on that has a slot, and wait until it is settled."""
        event = self._ends[job] = asyncio.Event()
        lane.running += 1
        try:
            if lane.tokens is None:
                self._reserve(1)
                self._begin(job)
            else:
                self._wait_in(lane.tokens, job)
                self._serve(lane)
            await event.wait()
        finally:
            lane.running -= 1

    async def _free_place(self, channel: Channel, lane: Lane, total: int) -> tuple[int, QueueInfo]:
        """Choose a slot of a key that nobody seems to hold, or any if all are held. Return its number and queue."""
        left = [place for place in range(1, total + 1) if place not in lane.places]
        random.shuffle(left)  # so that workers do not all wait for the same one
        while True:
            place = left.pop()
            lane.places.add(place)
            try:
                queue = key_slot_queue(self._app, self._stage.name, lane.key, place)
                info = await channel.declare_queue(queue, durable=True, arguments=key_slot_arguments(), restore=False)
                if not info.consumer_count or not left:
                    return place, info
            except BaseException:
                lane.places.discard(place)
                raise
            lane.places.discard(place)
            left = [each for each in left if each not in lane.places] or [place]

    async def _spend(self, lane: Lane, waiting: Waiting, rate: Rate) -> None:
        """Wait for the state of a key's rate, and begin messages as it allows."""
        loop = asyncio.get_running_loop()
        queue = key_rate_queue(self._app, self._stage.name, lane.key)
        await self._wait_for_room()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._rate_leases)
            if not waiting.count():
                return
            async with self._waiting_for_lease(lane, waiting):
                opening = self._publishing.channel(prefetch=_MOST_STATES, confirms=False)
                channel = await stack.enter_async_context(await opening)
                arguments = key_rate_arguments()
                info = await channel.declare_queue(queue, durable=True, arguments=arguments, restore=False)
                states, first = await waited(channel, queue, self._publish, is_unused=_is_unused(info))
            held = await self._all_states(channel, states, first)
            until, turn = latest_state(held), loop.time() + _TURN
            while waiting.count():
                if not await self._has_room(channel, queue):
                    return
                now = time.time()
                if until > now + _AHEAD:  # a clock that is far ahead of this one's must not stop the key
                    until = now
                number, pause = due(rate, until, now)
                if number:
                    number = min(number, self._free, waiting.count())
                    until = used_up_to(rate, until, now) + number / rate.per_second
                    await self._begin_some(waiting, number, self._use(channel, queue, held, until, rate))
                    if loop.time() >= turn:
                        return
                    held = [await returned(states)]
                else:
                    await asyncio.sleep(min(pause, _LONGEST))
                held += await arrived(states)
                if all(each.is_lost for each in held):
                    raise ConnectionClosed(0, "the connection was lost, so that another worker may have the key")

    async def _all_states(self, channel: Channel, states: Consumer, first: Delivery) -> list[Delivery]:
        """Return all states of a key: of several, one that is older and has no time may come first."""
        if not read_minted(first.body).until:
            # RabbitMQ may answer the first request before it sends the deliveries that its channel has.
            for _ in range(2):
                await channel.declare_queue(states.queue, passive=True)
        return [first, *await arrived(states)]

    async def _use(self, channel: Channel, queue: str, held: list[Delivery], until: float, rate: Rate) -> None:
        """Use tokens: publish the next state of a rate, and acknowledge those held, in one transaction."""
        # A slow rate must outlive the broker; a fast one must not wait for its disk.
        mode = 2 if rate.per_second < 1 else 1
        properties = Properties(content_type=JSON, delivery_mode=mode, app_id=self._app)
        async with channel.transaction():
            settle(held)  # first, so that nothing is published once the state is another worker's
            await channel.publish(encode_minted(Minted(until)), routing_key=queue, properties=properties)

    async def _begin_some(self, waiting: Waiting, number: int, used: Awaitable[None]) -> None:
        """Begin so many messages, once their tokens are used; or as many as still wait: the others were returned."""
        self._reserve(number)
        try:
            await used
            while number and (job := waiting.next()) is not None:
                number -= 1
                self._begin(job)
        finally:
            self._reserve(-number)


def _soon(rate: Rate) -> int:
    """Return how many messages of a key may begin before one that is put off now comes again."""
    return rate.burst + math.ceil(rate.per_second * (_LATER.after or 0.0))


def _is_unused(info: QueueInfo) -> bool:
    return not info.message_count and not info.consumer_count
