"""Running roles until they are stopped: the worker, and beside it the outbox of people's decisions and the answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from rabbitry._decode import decode_object
from rabbitry._words import counted
from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.apps._connected import run_connected
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.counting import compare_kept
from rabbitry.apps.grading.message import Assignment
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.questions import Answers, answer_questions
from rabbitry.apps.grading.records import Database, inbox, outbox
from rabbitry.apps.grading.records.course import note_place
from rabbitry.apps.grading.regrading import reopen_begun
from rabbitry.apps.grading.releasing import publish_released
from rabbitry.apps.grading.signatures import Signer
from rabbitry.apps.grading.stages import APP, RoleSet
from rabbitry.exceptions import PublishError
from rabbitry.flow.codec import JSON
from rabbitry.flow.message import first_properties
from rabbitry.runtime.tasks import until

LOOK: Final = 0.2
"""Seconds between two reads of the outbox."""
PAUSE: Final = 5.0
"""Seconds before a failed publish is tried again."""

_logger = logging.getLogger(__name__)


async def run(
    role_set: RoleSet,
    url: str,
    stop: asyncio.Event,
    *,
    strict: bool = False,
    connect_attempts: int | None = None,
    deadline: float = 10.0,
    started: Callable[[str], None] | None = None,
) -> bool:
    """Run roles until `stop` is set. Return whether handlers in progress finished within `deadline`.

    `started` is called with the names of the app and its stages when all of them consume and questions are answered.
    Raises the errors of `Worker`: ConnectFailed past `connect_attempts`, LoginRefused, TopologyMismatch and so on.
    """
    if role_set.database is not None and role_set.files is not None:
        await role_set.database.write(partial(note_place, place=role_set.files.place))
    app = role_set.app()
    worker = app.worker(url, strict=strict, connect_attempts=connect_attempts)
    role_set.found_type = lambda: worker.exchange_type
    if await until(stop, worker.__aenter__()) is None:
        return True
    ending, answering = asyncio.Event(), asyncio.Event()
    sides = [asyncio.create_task(side) for side in _sides(role_set, url, ending, answering)]
    waiting = [asyncio.create_task(worker.wait()), asyncio.create_task(stop.wait()), *sides]
    ready = asyncio.create_task(answering.wait())
    try:
        await asyncio.wait([ready, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if started is not None and answering.is_set():
            started(f"{app.name}: {', '.join(stage.name for stage in worker.stages)}")
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ending.set()
        role_set.turns.close()
        is_done = await worker.stop(deadline)
        for task in waiting:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        ending.set()
        if sides:
            await asyncio.wait(sides, timeout=deadline)
        for task in (ready, *waiting):
            task.cancel()
        await asyncio.gather(ready, *waiting, return_exceptions=True)
    for name, number in sorted(role_set.left_alone.items()):
        _logger.info("%s: %s of others left alone", name, counted(number, "message"))
    for name, number in sorted(role_set.declined.items()):
        _logger.info("%s: %s declined", name, counted(number, "submission"))
    return is_done


def _sides(
    role_set: RoleSet, url: str, stop: asyncio.Event, answering: asyncio.Event
) -> list[Coroutine[Any, Any, None]]:
    """Return the tasks beside the worker, with connections of their own. `answering`: set once questions are taken."""
    database = role_set.database
    is_asked = database is not None and any(spec.role == "coordinator" for spec in role_set.specs)
    if not is_asked:
        answering.set()
    if database is None:
        return []
    sides = []
    # Without people, coordinators publish what is to be marked again.
    people = sorted({spec.role for spec in role_set.specs if spec.person or spec.role == "coordinator"})
    if people:
        signer, signatures = role_set.signer, role_set.wiring.course.signatures
        modules = None if signer is None or signatures is None else signatures.modules_of(signer)
        work = partial(
            publish_outbox, database, people, stop, course=role_set.wiring.course, signer=signer, modules=modules
        )
        sides.append(run_connected(url, work, name=f"{APP} outbox", stop=stop))
    if is_asked:
        sides.append(publish_released(database, stop))
        course, exchange = role_set.wiring.course, role_set.wiring.exchange
        answers = Answers(database, course, role_set.files, exchange)
        work = partial(answer_questions, answers, stop, answering)
        sides.append(run_connected(url, work, name=f"{APP} status", stop=stop))
        if role_set.files is not None:
            sides.append(reopen_begun(database, role_set.files, course, exchange, stop))
            sides.append(compare_kept(database, role_set.files, stop))
    return sides


# -- the outbox ------------------------------------------------------------------------------------------


async def publish_outbox(
    database: Database,
    roles: Sequence[str],
    stop: asyncio.Event,
    connection: Connection,
    *,
    course: Course,
    signer: Signer | None = None,
    modules: Sequence[str] | None = None,
) -> None:
    """Publish people's decisions for these roles until `stop` is set; each leaves the outbox once confirmed.

    The decisions are signed here, so that the page and the commands need no key. Those of other modules than `modules`
    are left to a role whose key may sign them; None publishes all.

    Raises:
        ConnectionClosed: The connection was closed, or lost for good.
    """
    channel = await connection.channel()
    while not stop.is_set():
        pause = LOOK
        try:
            if not await database.read(partial(outbox.is_empty, roles=roles, modules=modules)):
                claimed = partial(inbox.claimed, roles=roles, course=course, modules=modules, signer=signer)
                letters = await database.write(claimed)
                pause = 0.0 if await _publish(database, channel, letters, signer) else PAUSE
        except RecordsError as error:
            _logger.warning("the outbox: %s; trying again in %g s", error, PAUSE)
            pause = PAUSE
        if pause:
            await until(stop, asyncio.sleep(pause))
    await channel.close()


async def _publish(database: Database, channel: Channel, letters: list[outbox.Letter], signer: Signer | None) -> bool:
    """Publish decisions and remove the confirmed ones. Return whether all were confirmed."""
    confirmed: list[int] = []
    try:
        if not channel.is_open:
            await channel.open()
        futures = [await channel.send(
            letter.body if signer is None else _signed(letter, signer),
            exchange=letter.exchange,
            routing_key=letter.key,
            properties=_properties(letter),
            mandatory=letter.required,
        ) for letter in letters]  # fmt: skip
        for letter, future in zip(letters, futures, strict=True):
            try:
                await future
            except PublishError as error:
                _logger.warning("assignment %s stays in the outbox: %s", letter.submission, error)
            else:
                confirmed.append(letter.id)
                if letter.type == Assignment.__name__:
                    decided = Assignment(decode_object(letter.body))
                    _logger.info("%s: %s, by %s", letter.role, decided, decided.history[-1].get("who"))
    finally:
        left = [letter.id for letter in letters if letter.id not in confirmed]
        if confirmed:
            await database.write(partial(outbox.published, letters=confirmed))
        if left:
            await database.write(partial(outbox.release, letters=left))
    return not left


def _signed(letter: outbox.Letter, signer: Signer) -> bytes:
    return msgspec.json.encode(signer.sign(Assignment(decode_object(letter.body))))


def _properties(letter: outbox.Letter) -> Properties:
    properties = first_properties(APP, JSON, letter.type)
    return properties._replace(message_id=letter.message, correlation_id=letter.submission)
