"""The whole pipeline of an assignment on both brokers: alone, beside plain programs, by broadcast, by people."""

import asyncio
import codecs
import json
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Properties
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.message import Decision, now
from rabbitry.apps.grading.records import Database, course, outbox
from rabbitry.apps.grading.stages import STATUS_QUEUE, RoleSet, RoleSpec, Wiring
from rabbitry.apps.grading.students import results
from rabbitry.exceptions import NotFound, PublishReturned, RequestTimeout
from rabbitry.telemetry._report import INTERVAL
from tests.apps.grading import _running
from tests.apps.grading._running import ALL, CC, PEOPLE, WITHIN, Plain, arrived, decide, history, recorded, role_set
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds
from tests.support.waiting import eventually, eventually_awaited

pytestmark = pytest.mark.timeout(120)
FOUR: dict[str, Any] = {"StudentID": 23200858, "Solution": "x", "Module": "cloud_computing", "status": "submitted"}
WAY = [
    ("student", "submitted"),
    ("demonstrator", "corrected"),
    ("assistant", "validated"),
    ("coordinator", "confirmed"),
]


async def dead_letters(url: str, number: int) -> list[Any]:
    """Wait for so many dead letters of grading, and return them."""
    app = RoleSet(Wiring(), ALL).app()
    await eventually_dead(url, app, number)
    return await dead_of(url, app)


async def test_the_whole_way_with_all_roles_automatic(no_leaks: None, broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database):
        identity = await _running.submit(broker_url)
        await recorded(one_database, "confirmed", 1)
    assert await history(one_database, identity) == WAY


async def test_submissions_sent_before_any_role_ran_wait(broker_url: str, one_database: Database) -> None:
    first = await _running.submit(broker_url)
    for spec in (
        RoleSpec("demonstrator", CC),
        RoleSpec("assistant"),
    ):  # one after the other, never two at the same time
        async with role_set(broker_url, None, [spec]):
            # A role that ends gives back the messages that it has not begun.
            await eventually_holds(broker_url, "validation_queue" if spec.module else "confirmation_queue", 1)
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")]):
        await recorded(one_database, "confirmed", 1)
    assert await history(one_database, first) == WAY


async def test_all_roles_are_people_and_the_assistant_sends_back_once(
    no_leaks: None, broker_url: str, one_database: Database
) -> None:
    async with role_set(broker_url, one_database, PEOPLE):
        identity = await _running.submit(broker_url)
        (item,) = await arrived(one_database, "demonstrator")
        await decide(one_database, item, "correct", Decision("ann", 3.0, 10.0, "poor"))
        (item,) = await arrived(one_database, "assistant")
        assert item.assignment["Feedback"] == "poor"
        await decide(one_database, item, "send-back", Decision("bob", remark="look again"))
        (item,) = await arrived(one_database, "demonstrator")
        assert (item.assignment.remarks, item.assignment.status) == (["look again"], "submitted")
        await decide(one_database, item, "correct", Decision("ann", 8.0, 10.0, "better"))
        (item,) = await arrived(one_database, "assistant")
        await decide(one_database, item, "validate", Decision("bob"))
        (item,) = await arrived(one_database, "coordinator")
        done = await decide(one_database, item, "confirm", Decision("eve"))
        (found,) = await recorded(one_database, "confirmed", 1)
    assert done.id == identity == found.id
    assert (found.mark, found.out_of, found.feedback) == (8.0, 10.0, "better")
    assert await history(one_database, identity) == [*WAY[:2], ("assistant", "submitted"), *WAY[1:]]


async def test_roles_with_separate_databases_share_only_the_broker(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    urls = [f"sqlite:///{tmp_path / name}" for name in ("demonstrator", "assistant")]
    with Database(urls[0]) as first, Database(urls[1]) as second:
        async with (
            role_set(broker_url, first, [RoleSpec("demonstrator", CC, person=True)]),
            role_set(broker_url, second, [RoleSpec("assistant", person=True)]),
            role_set(broker_url, one_database, [RoleSpec("coordinator")]),
        ):
            identity = await _running.submit(broker_url)
            await recorded(one_database, "submitted", 1)
            (item,) = await arrived(first, "demonstrator")
            await decide(first, item, "correct", Decision("ann", 1.0))
            await recorded(one_database, "corrected", 1)  # the broker returned it
            (item,) = await arrived(second, "assistant")
            await decide(second, item, "validate", Decision("bob"))
            await recorded(one_database, "confirmed", 1)
            async with Asking(broker_url) as asking:
                found = await asking.ask(identity)
                assert found is not None
                assert [(hop["role"], hop["status"]) for hop in found["history"]] == WAY
                assert await asking.ask("nobody's") is None


async def test_without_a_coordinator_a_question_fails_with_the_reason(broker_url: str) -> None:
    async with Asking(broker_url) as asking:
        with pytest.raises(RequestTimeout, match="no coordinator answers"):
            await asking.ask("x")


async def test_four_fields_of_any_program_run_through_and_all_fields_come_out(
    broker_url: str, one_database: Database
) -> None:
    sent = FOUR | {"Extra": {"deep": [1, None, "ü"]}}
    async with role_set(broker_url, one_database):
        with Plain(broker_url) as plain:
            read_results(plain)
            plain.send("demonstrator_cc", sent)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
    assert {name: result[name] for name in sent} == sent | {"status": "confirmed"}
    (found,) = await recorded(one_database, "confirmed", 1)
    assert (found.student, found.id) == ("23200858", result["SubmissionID"])


async def test_fields_forged_by_a_student_change_nothing(broker_url: str, one_database: Database) -> None:
    before = now()
    long_ago = {"role": "student", "status": "submitted", "who": "x", "when": "2001-01-01T00:00:00+00:00"}
    hop = {"role": "coordinator", "status": "confirmed", "who": "x", "mark": 10, "when": "2001-01-01T00:00:00+00:00"}
    async with role_set(broker_url, one_database):
        honest = await _running.submit(broker_url, 7)
        await recorded(one_database, "confirmed", 1)
        with Plain(broker_url) as plain:
            forged = {"Mark": 10, "OutOf": 10, "Feedback": "splendid", "Remarks": ["full marks"], "attempt": 0}
            forged |= {"History": [long_ago, hop], "SubmissionID": honest, "submitted_at": "2001-01-01"}
            plain.send("demonstrator_cc", FOUR | forged)  # the id of another submission
            plain.send("demonstrator_cc", FOUR | forged | {"StudentID": 7})  # in another student's name, too
        found = {(one.id == honest, one.student): one for one in await recorded(one_database, "confirmed", 3)}
    assert sorted(found) == [(False, "23200858"), (False, "7"), (True, "7")]
    for one in found.values():
        assert (one.mark, one.out_of, one.feedback) == (None, None, None)
        assert before <= one.submitted_at <= now()
        assert await history(one_database, one.id) == WAY
    assert (found[True, "7"].attempt, found[False, "7"].attempt, found[False, "7"].latest) == (1, 2, True)


async def test_forged_reports_confirm_nothing(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")]):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            body = json.dumps(FOUR | {"status": "confirmed", "Mark": 10, "SubmissionID": "mine"}).encode()
            await channel.publish(body, exchange="assignment_progress", routing_key="progress")
        (letter,) = await dead_letters(broker_url, 1)
        assert (letter.reason, "only the coordinator" in letter.error) == ("rejected", True)
    assert one_database.read_now(course.counts) == {}


@pytest.mark.parametrize("status", [["submitted"], None, "", "passed", {"a": "\ud800"}, 1])
async def test_reports_with_an_unknown_status_are_not_recorded(
    broker_url: str, one_database: Database, status: object
) -> None:
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")]):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            body = json.dumps(FOUR | {"status": status, "SubmissionID": "mine"}).encode()
            await channel.publish(body, exchange="assignment_progress", routing_key="progress")
        assert len(await dead_letters(broker_url, 1)) == 1
    assert one_database.read_now(course.counts) == {}


def read_results(plain: Plain) -> None:
    """Read results as the originals do."""
    plain.channel.queue_declare("results_queue", durable=True)
    plain.channel.queue_bind("results_queue", plain.exchange, "results")


async def test_the_answer_form_goes_by_the_key_correction(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database):
        with Plain(broker_url) as plain:
            read_results(plain)
            plain.send("correction", {"StudentID": 5, "Answer": "42", "status": "submitted"})
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
    assert (result["Answer"], result["status"]) == ("42", "confirmed")


@pytest.mark.parametrize(
    ("queue", "status"),
    [
        ("correction_queue_cc", "corrected"),
        ("correction_queue", None),
        ("validation_queue", "submitted"),
        ("confirmation_queue", "confirmed"),
        ("confirmation_queue", ["validated"]),
    ],
)
async def test_an_assignment_in_another_status_is_a_dead_letter(
    broker_url: str, one_database: Database, queue: str, status: object
) -> None:
    async with role_set(broker_url, one_database):
        with Plain(broker_url) as plain:
            read_results(plain)
            body = {name: value for name, value in (FOUR | {"status": status}).items() if value is not None}
            plain.channel.basic_publish("", queue, json.dumps(body).encode())
        (letter,) = await dead_letters(broker_url, 1)
    assert (letter.reason, letter.queue, json.loads(letter.body)) == ("wrong-status", queue, body)
    assert "takes" in letter.error


async def test_bodies_that_are_no_assignments_are_dead_letters(broker_url: str, one_database: Database) -> None:
    bodies = {
        b"no json": "undecodable",
        b"[1]": "undecodable",
        b'{"a":' * 20_000: "undecodable",
        b'{"StudentID": 7, "Solution": "caf\xe9", "status": "submitted"}': "undecodable",
        b'{"StudentID": 7, "Solution": "\\ud800", "status": "submitted"}': "undecodable",
        b'{"status": "submitted"}': "rejected",
    }
    async with role_set(broker_url, one_database):
        with Plain(broker_url) as plain:
            read_results(plain)
            for body in bodies:
                plain.channel.basic_publish("", "correction_queue_cc", body)
        letters = await dead_letters(broker_url, len(bodies))
    assert {letter.body: letter.reason for letter in letters} == bodies


@pytest.mark.parametrize("specs", [ALL, PEOPLE], ids=["automatic", "people"])
async def test_properties_that_are_not_text_stop_no_role(
    broker_url: str, one_database: Database, specs: tuple[RoleSpec, ...]
) -> None:
    odd = [Properties(message_id="m\udcff"), Properties(message_id="a\0b"), Properties(correlation_id="c\udcff\0")]
    async with role_set(broker_url, one_database, specs), rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        for number, properties in enumerate([*odd, Properties()]):
            body = json.dumps(FOUR | {"StudentID": 1000 + number}).encode()
            await channel.publish(
                body, exchange="assignment_exchange", routing_key="demonstrator_cc", properties=properties
            )
        if specs is ALL:
            await recorded(one_database, "confirmed", 4)
        else:
            await arrived(one_database, "demonstrator", 4)
        await asyncio.sleep(INTERVAL * 1.5)  # everything is reported; the roles' exit tells whether that worked


async def test_a_demonstrator_marks_and_the_feedback_is_passed_on(broker_url: str, one_database: Database) -> None:
    def marker(solution: bytes, name: str) -> Decision:
        assert name == "x.py"
        return Decision("automatic", float(len(solution)), 100.0, f"{len(solution)} bytes")

    async with role_set(broker_url, one_database, markers={"cloud_computing": marker}):
        await _running.submit(broker_url, data=b"12345")
        await _running.submit(broker_url, data=b"\xff" * 7)
        found = await recorded(one_database, "confirmed", 2)
    assert {(one.mark, one.out_of, one.feedback) for one in found} == {(5.0, 100.0, "5 bytes"), (7.0, 100.0, "7 bytes")}
    assert sorted((one.attempt, one.latest) for one in found) == [(1, False), (2, True)]


async def test_two_of_each_role_confirm_each_submission_once(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database), role_set(broker_url, one_database):
        await asyncio.gather(*(_running.submit(broker_url, number) for number in range(1, 21)))
        found = await recorded(one_database, "confirmed", 20)
    assert len(found) == 20
    assert {len(await history(one_database, one.id)) for one in found} == {4}


# -- broadcast -------------------------------------------------------------------------------------------


async def test_a_broadcast_ends_with_one_confirmed_for_each_submitted(broker_url: str, one_database: Database) -> None:
    wiring = Wiring(exchange="everybody", exchange_type="fanout")
    seen: list[str] = []

    async def listen() -> None:
        async for fields in results(wiring, broker_url):
            seen.append(fields["SubmissionID"])

    early: list[str] = []

    async def is_heard() -> bool:
        early.append(await _running.submit(broker_url, 99, wiring=wiring))
        return bool(seen)

    async with (
        role_set(broker_url, one_database, wiring=wiring) as first,
        role_set(broker_url, one_database, wiring=wiring) as second,
    ):
        listening = asyncio.create_task(listen())
        await eventually_awaited(is_heard, "a result", within=WITHIN)  # a message from before somebody listens is lost
        sent = await asyncio.gather(*(_running.submit(broker_url, number, wiring=wiring) for number in range(1, 11)))
        await recorded(one_database, "confirmed", len(early) + 10)
        queues = ["correction_queue_cc", "correction_queue_dm", "correction_queue", "validation_queue"]
        for queue in queues:
            await eventually_holds(broker_url, queue, 0)
        await eventually(lambda: set(sent) <= set(seen), "the results", within=WITHIN)
        listening.cancel()
    assert len(seen) == len(set(seen))
    assert set(seen) <= {*early, *sent}
    assert first.left_alone["demonstrator_dm"] + second.left_alone["demonstrator_dm"] > 0
    assert (await counts(broker_url, ["grading.dead"]))["grading.dead"] == 0


async def test_a_broadcast_that_two_kinds_of_demonstrators_take_is_confirmed_once(
    broker_url: str, one_database: Database
) -> None:
    wiring = Wiring(exchange="everybody", exchange_type="fanout")
    specs = [[RoleSpec("demonstrator", CC)], [RoleSpec("demonstrator")]]
    async with (
        role_set(broker_url, None, specs[0], wiring=wiring),
        role_set(broker_url, None, specs[1], wiring=wiring),
        role_set(broker_url, one_database, ALL[3:], wiring=wiring) as last,
    ):
        identity = await _running.submit(broker_url, wiring=wiring)
        await recorded(one_database, "confirmed", 1)
        # Both corrections are validated, and both validations reach the coordinator: 1 + 2 + 2 + 1 messages.
        await eventually(lambda: last.left_alone["coordinator"] >= 4, "all messages", within=WITHIN)
        assert last.left_alone["coordinator"] == 4
    assert await history(one_database, identity) == WAY


# -- plain programs --------------------------------------------------------------------------------------


async def test_plain_roles_beside_programs_that_declare_with_pikas_defaults(
    broker_url: str, one_database: Database
) -> None:
    wiring = Wiring(plain=True)
    with Plain(broker_url) as plain:
        plain.declare("results_queue", "results")
        plain.declare("correction_queue_cc", "demonstrator_cc")
        async with role_set(broker_url, one_database, wiring=wiring):
            plain.send("demonstrator_cc", FOUR)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
            # First the roles declared second, now plain programs do: 406 would be raised if flags differed.
            for queue, key in (("validation_queue", "validation"), ("confirmation_queue", "confirmation")):
                plain.declare(queue, key)
    assert result["status"] == "confirmed"


async def test_a_plain_demonstrator_among_our_roles(broker_url: str, one_database: Database) -> None:
    specs = [RoleSpec("assistant"), RoleSpec("coordinator")]
    identity = await _running.submit(broker_url)
    with Plain(broker_url) as plain:
        (fields,) = await asyncio.to_thread(plain.take, "correction_queue_cc")
        assert list(fields)[:2] == ["StudentID", "Solution"]
        plain.send("validation", fields | {"status": "corrected"})
    async with role_set(broker_url, one_database, specs):
        (found,) = await recorded(one_database, "confirmed", 1)
    assert found.id == identity


async def test_an_exchange_with_other_flags_is_used_as_it_is(
    broker_url: str, one_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with Plain(broker_url) as plain:
        plain.declare("results_queue", "results")
        plain.declare("validation_queue", "validation")
        async with role_set(broker_url, one_database):
            await _running.submit(broker_url)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
    assert result["status"] == "confirmed"
    assert "exchange 'assignment_exchange' exists with other flags and is used as it is" in caplog.text


async def test_results_without_a_queue_are_dropped(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database):
        await _running.submit(broker_url)
        await recorded(one_database, "confirmed", 1)
    assert (await counts(broker_url, ["grading.dead", "results_queue"])) == {"grading.dead": 0, "results_queue": -1}


async def test_a_repeated_message_is_in_the_inbox_once(broker_url: str, one_database: Database) -> None:
    body = FOUR | {"SubmissionID": "twice", "History": [{"role": "student", "status": "submitted", "when": now()}]}
    async with role_set(broker_url, one_database, PEOPLE[:1]):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            for _ in range(2):
                await channel.publish(
                    json.dumps(body).encode(), exchange="assignment_exchange", routing_key="demonstrator_cc"
                )
        await arrived(one_database, "demonstrator")
        await eventually_holds(broker_url, "correction_queue_cc", 0)
    assert len(await arrived(one_database, "demonstrator")) == 1


NO_QUESTIONS = [
    b"",
    b"[]",
    b"null",
    b'{"SubmissionID": 3}',
    b'{"SubmissionID": "caf\xe9"}',
    b'{"SubmissionID": "\\ud800"}',
    b'{"SubmissionID": NaN}',
    b'{"SubmissionID": "x", "a": ' + b"[" * 20_000,
    b'{"SubmissionID": ' + b"9" * 5_000 + b"}",
    b"\xff\xfe" + '{"SubmissionID": "x"}'.encode("utf-16-le"),
]


async def test_malformed_queries_are_ignored_and_the_next_one_answered(broker_url: str, one_database: Database) -> None:
    identity = await _running.submit(broker_url)
    async with role_set(broker_url, one_database):
        await recorded(one_database, "confirmed", 1)
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            for body in NO_QUESTIONS:
                await channel.publish(body, routing_key=STATUS_QUEUE)
            gone = Properties(reply_to="nobody's queue")
            await channel.publish(b'{"SubmissionID": "x"}', routing_key=STATUS_QUEUE, properties=gone)
        async with Asking(broker_url) as asking:
            found = await asking.ask(identity)
            assert found is not None
            assert found["status"] == "confirmed"
            assert await asking.ask("x" * 5_000) is None
            assert await asking.ask(identity[:6]) == found
            with pytest.raises(NoSuchID, match="too short"):
                await asking.ask(identity[:3])


async def test_following_results_ignores_messages_that_are_not_json(broker_url: str) -> None:
    coming = results(Wiring(), broker_url)
    first = asyncio.ensure_future(anext(coming))
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:

        async def send(body: bytes) -> bool:
            try:
                await channel.publish(body, exchange="assignment_exchange", routing_key="results")
            except (PublishReturned, NotFound):  # until its queue is bound
                if not channel.is_open:
                    await channel.open()
                return False
            return True

        async with asyncio.timeout(WITHIN):
            while not await send(b""):
                pass
        for body in (*NO_QUESTIONS, b'{"status": "confirmed", "a": "\xff"}'):
            await send(body)
        await send(codecs.BOM_UTF8 + b'{"status": "confirmed", "StudentID": 7}')
        async with asyncio.timeout(WITHIN):
            assert await first == {"status": "confirmed", "StudentID": 7}
    await coming.aclose()


async def test_a_decision_made_while_no_role_runs_is_published_once_one_does(
    broker_url: str, one_database: Database
) -> None:
    assistant = RoleSpec("assistant", person=True)
    async with role_set(broker_url, one_database, [RoleSpec("demonstrator", CC), assistant, RoleSpec("coordinator")]):
        identity = await _running.submit(broker_url)
        (item,) = await arrived(one_database, "assistant")
    await decide(one_database, item, "validate", Decision("bob"))
    async with (
        role_set(broker_url, one_database, [assistant, RoleSpec("coordinator")]),
        role_set(broker_url, one_database, [assistant, RoleSpec("coordinator")]),  # two publishers share one outbox
    ):
        await recorded(one_database, "confirmed", 1)
        await eventually(lambda: one_database.read_now(outbox.count) == 0, "the outbox to be empty", within=WITHIN)
    assert await history(one_database, identity) == WAY
    assert (await counts(broker_url, ["confirmation_queue"]))["confirmation_queue"] == 0


async def test_each_role_logs_a_line_for_each_assignment(
    broker_url: str, one_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rabbitry.apps.grading")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name.startswith("rabbitry.apps.grading.")]

    def marked(solution: bytes, name: str) -> Decision:
        return Decision("automatic", 8.5, 10.0)

    specs = [RoleSpec("demonstrator", CC), RoleSpec("assistant", person=True), RoleSpec("coordinator")]
    async with role_set(broker_url, one_database, specs, markers={"cloud_computing": marked}):
        identity = await _running.submit(broker_url)
        (item,) = await arrived(one_database, "assistant")
        await decide(one_database, item, "validate", Decision("bob"))
        await recorded(one_database, "confirmed", 1)
        with Plain(broker_url) as plain:
            plain.send("validation", {"status": "corrected", "Solution": "nobody's"})
        await dead_letters(broker_url, 1)
        what = "student 7, cloud_computing:"
        said = [
            f"demonstrator_cc: {what} corrected, mark 8.5 of 10 ({identity})",
            f"assistant: {what} corrected, mark 8.5 of 10 ({identity}), waits for a person",
            f"assistant: {what} validated, mark 8.5 of 10 ({identity}), by bob",
            f"coordinator: {what} confirmed, mark 8.5 of 10 ({identity})",
            "assistant: an assignment becomes a dead letter: StudentID is nothing, which is not a student's number",
        ]
        await eventually(lambda: set(said) <= set(lines()), "a line of each role", within=WITHIN)
        assert len([line for line in lines() if identity in line]) == 4
