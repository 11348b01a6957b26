"""Roles that run inside a test, and plain programs that use pika."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pika
import pytest

from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import Assignment
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, inbox
from rabbitry.apps.grading.service import run
from rabbitry.apps.grading.signatures import Signer
from rabbitry.apps.grading.stages import Marker, RoleSet, RoleSpec, Wiring
from rabbitry.apps.grading.students import Submitter
from tests.support.waiting import eventually

CC = Course().module("cloud_computing")
DM = Course().module("data_mining")
ALL = (
    RoleSpec("demonstrator", CC),
    RoleSpec("demonstrator", DM),
    RoleSpec("demonstrator"),
    RoleSpec("assistant"),
    RoleSpec("coordinator"),
)
PEOPLE = tuple(RoleSpec(spec.role, spec.module, person=True) for spec in ALL)
WITHIN = 80.0
ON_BOTH_DATABASES = pytest.mark.parametrize("found_url", ["sqlite", "postgresql"], indirect=True)
"""Runs a test with the fixture `found_url` once on SQLite and once on PostgreSQL."""


@contextmanager
def course_database(url: str) -> Iterator[Database]:
    """Open a database as that of a course, whose coordinator has run here and recorded nothing yet."""
    with Database(url) as database:
        database.write_now(partial(course.note_place, place=default_place(url)))
        yield database


@asynccontextmanager
async def role_set(
    url: str,
    database: Database | None = None,
    specs: Sequence[RoleSpec] = ALL,
    *,
    wiring: Wiring | None = None,
    markers: Mapping[str, Marker] | None = None,
    files: Files | None = None,
    signer: Signer | None = None,
) -> AsyncIterator[RoleSet]:
    """Run role specs within the block, after they have started."""
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    made = RoleSet(wiring or Wiring(), specs, database, markers or {}, files=files, signer=signer)
    task = asyncio.create_task(run(made, url, stop, connect_attempts=20, started=started.set_result))
    try:
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        yield made
    finally:
        stop.set()
        assert await task, "what was in hand was not finished"


async def submit(
    url: str, student: int = 7, *, wiring: Wiring | None = None, data: bytes = b"x = 1\n", name: str = "x.py"
) -> str:
    """Submit one file for cloud_computing."""
    async with Submitter(wiring or Wiring(), url) as submitter:
        return await submitter.submit(student, CC, data, name)


async def recorded(database: Database, status: str, number: int) -> list[course.Submission]:
    """Wait until `number` submissions have a status; return all recorded submissions."""
    counts: dict[str, int] = {}

    def enough() -> bool:
        nonlocal counts
        counts = database.read_now(course.counts)
        return counts.get(status, 0) >= number

    try:
        await eventually(enough, f"{number} {status}", within=WITHIN)
    except AssertionError as error:
        raise AssertionError(f"{error}: {counts}") from error
    return database.read_now(course.submissions_of)


async def history(database: Database, identity: str) -> list[tuple[str, str]]:
    """Return the hops of a submission as (role, status)."""
    found = await database.read(partial(course.submission, identity=identity))
    assert found is not None
    return [(hop.role, hop.status) for hop in found[1]]


async def arrived(database: Database, role: Any, number: int = 1) -> list[inbox.Item]:
    """Wait until a role's inbox has `number` assignments."""
    await eventually(
        lambda: len(database.read_now(partial(inbox.waiting, role=role))) >= number,
        f"{number} in {role}",
        within=WITHIN,
    )
    return database.read_now(partial(inbox.waiting, role=role))


async def decide(database: Database, item: inbox.Item, action: str, decision: Any) -> Assignment:
    """Decide as a person does on the page."""
    return await database.write(partial(inbox.settle, found=item, action=action, decision=decision, course=Course()))


class Plain:
    """A program like the originals: pika with its defaults, without confirms. A context manager."""

    def __init__(self, url: str, exchange: str = "assignment_exchange", type_: str = "direct") -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.exchange = exchange
        self._type = type_

    def declare(self, queue: str, key: str) -> None:
        """Declare the exchange and a queue as pika does by default, and bind it."""
        self.channel.exchange_declare(exchange=self.exchange, exchange_type=self._type)
        self.channel.queue_declare(queue=queue)
        self.channel.queue_bind(exchange=self.exchange, queue=queue, routing_key=key)

    def send(self, key: str, fields: Mapping[str, Any]) -> None:
        """Publish a JSON object without properties."""
        self.channel.basic_publish(exchange=self.exchange, routing_key=key, body=json.dumps(fields).encode())

    def take(self, queue: str, number: int = 1) -> list[dict[str, Any]]:
        """Return the next `number` messages."""
        found: list[dict[str, Any]] = []
        for _, _, body in self.channel.consume(queue, auto_ack=True, inactivity_timeout=WITHIN):
            assert body is not None, f"only {len(found)} of {number} came"
            found.append(json.loads(body))
            if len(found) == number:
                break
        self.channel.cancel()
        return found

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
