"""Who may ask for the status of which submission, by the login that the broker vouches for."""

import asyncio
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Properties, connect
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.message import Assignment, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course
from rabbitry.apps.grading.stages import STATUS_QUEUE, RoleSpec, Wiring
from rabbitry.exceptions import PreconditionFailed
from tests.apps.grading._running import CC, Plain, role_set

pytestmark = pytest.mark.timeout(180)


def _recorded(database: Database, student: int | str) -> str:
    made = submission(student, CC.name, f"# {student}".encode(), "x.py", "")
    made["SubmissionID"] = identity = new_id(made)
    database.write_now(partial(course.record, assignment=Assignment(made)))
    return identity


async def test_a_login_sees_its_own_submissions_unless_it_may_see_all(broker_url: str, one_database: Database) -> None:
    """The tests' login is `guest`, which is no student's number: here it is one."""
    mine, other = [await asyncio.to_thread(_recorded, one_database, student) for student in ("guest", 7)]

    async def found(logins: tuple[str, ...] | None) -> list[str]:
        wiring = Wiring(replace(Course(), status_logins=logins))
        async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring):
            async with Asking(broker_url) as asking:
                return [one["id"] for one in [await asking.ask(mine), await asking.ask(other[:8])] if one is not None]

    assert await found(None) == [mine, other]
    assert await found(("guest",)) == [mine, other]
    assert await found(("office",)) == [mine]
    assert await found(()) == [mine]


async def test_a_question_without_a_login_is_refused_and_a_forged_one_does_not_reach_it(
    broker_url: str, one_database: Database
) -> None:
    identity = await asyncio.to_thread(_recorded, one_database, 7)
    question = msgspec.json.encode({"SubmissionID": identity})
    wiring = Wiring(replace(Course(), status_logins=("office",)))
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring):
        async with connect(broker_url) as connection:
            channel = await connection.channel()
            with pytest.raises(PreconditionFailed, match="user_id property set to 'office'"):
                await channel.publish(question, routing_key=STATUS_QUEUE, properties=Properties(user_id="office"))
        with Plain(broker_url) as plain:
            answered = await asyncio.to_thread(_asked_plainly, plain, question)
    assert "property user-id" in answered
    assert identity not in answered


async def test_who_asks_learns_nothing_of_the_ids_of_others(broker_url: str, one_database: Database) -> None:
    ids = [await asyncio.to_thread(_recorded, one_database, student) for student in ("guest", "guest", 7)]
    wiring = Wiring(replace(Course(), status_logins=()))
    async with (
        role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring),
        Asking(broker_url) as asking,
    ):
        assert await asking.ask(ids[2]) is None
        assert await asking.ask(ids[2][:4]) is None
        with pytest.raises(NoSuchID, match="give at least 4 letters"):
            await asking.ask(ids[0][:1])


def _asked_plainly(plain: Plain, question: bytes) -> str:
    """Ask as a program without a login's name in its messages does; return the answer."""
    import pika

    queue = plain.channel.queue_declare("", exclusive=True).method.queue
    plain.channel.basic_publish("", STATUS_QUEUE, question, pika.BasicProperties(reply_to=queue))
    for _, _, body in plain.channel.consume(queue, auto_ack=True, inactivity_timeout=80):
        assert body is not None
        return str(msgspec.json.decode(body))
    raise AssertionError("no answer came")
