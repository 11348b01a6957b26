"""Several questions are answered at once, and neither slow ones nor a flood of them hold up other askers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from msgspec import structs
from sqlalchemy import Connection as SQLConnection
from sqlalchemy import insert

from rabbitry.amqp.client import Properties, connect
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading import asking, looking, questions
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.looking import LARGEST, Look
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.places import NOBODY, Places
from rabbitry.apps.grading.questions import AT_ONCE, EACH, LONGEST, MOST_EACH, Answers, Question
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.records.schema import history
from rabbitry.apps.grading.stages import STATUS_QUEUE, RoleSpec, Wiring
from rabbitry.exceptions import ChannelClosed, RequestTimeout
from tests.apps.grading._running import Plain, role_set
from tests.apps.grading.test_looking import OPEN
from tests.apps.grading.test_regrading import _confirmed
from tests.apps.grading.test_status_logins import _asked_plainly
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import COMPAT
from tests.support.waiting import WITHIN, eventually

pytestmark = pytest.mark.timeout(180)
_SLOW = Look("file", sha256="0" * 64, size=1)
_QUICK = Look("requests")


@dataclass
class Slow:
    """Reads of files that wait until they may go on."""

    go_on: threading.Event = field(default_factory=threading.Event)
    begun: int = 0

    def read(self, files: Files, asked: Look) -> bytes:
        self.begun += 1
        assert self.go_on.wait(WITHIN)
        return b"x"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    monkeypatch.setattr(looking, "read_file", made.read)
    yield made
    made.go_on.set()


Coordinator: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture
def coordinator(broker_url: str, one_database: Database, tmp_path: Path) -> Coordinator:
    files = Files(str(tmp_path / "files"))
    return lambda: role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=Wiring(OPEN), files=files)


async def test_a_slow_question_holds_up_no_other_asker(broker_url: str, coordinator: Coordinator, slow: Slow) -> None:
    async with coordinator(), Asking(broker_url) as coordinators:
        slow_ones = [asyncio.create_task(coordinators.look(_SLOW)) for _ in range(EACH + 1)]
        await eventually(lambda: slow.begun == EACH, "as many are read as one asker may have")
        # Pages ask for each student over one login.
        assert (await coordinators.look(Look("requests", student="7")))["total"] == 0
        assert slow.begun == EACH, "the asker's third waits, though places are free"
        mine = asyncio.create_task(coordinators.look(_QUICK))
        slow.go_on.set()
        assert (await mine)["total"] == 0
        assert await asyncio.gather(*slow_ones) == ["eA=="] * (EACH + 1)


async def test_a_flood_is_refused_and_others_are_answered(
    broker_url: str, coordinator: Coordinator, slow: Slow
) -> None:
    async with coordinator(), Asking(broker_url) as coordinators:
        flood = [asyncio.create_task(coordinators.look(_SLOW)) for _ in range(MOST_EACH + 10)]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert (await coordinators.look(Look("requests", student="7")))["total"] == 0
        slow.go_on.set()
        done = await asyncio.gather(*flood, return_exceptions=True)
    refused = [one for one in done if isinstance(one, RecordsError)]
    assert (len(refused), done.count("eA==")) == (10, MOST_EACH), done
    assert "too many questions" in str(refused[0])


async def test_a_login_that_is_not_named_has_one_asker_s_turns_whatever_students_it_names(
    broker_url: str, one_database: Database, slow: Slow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(answers: Answers, question: Question, asker: str | None) -> bytes:
        slow.read(Files(str(tmp_path)), _SLOW)
        return b"{}"

    monkeypatch.setattr(Answers, "answer", answer)
    wiring = Wiring(replace(Course(), status_logins=("office",)))
    roles = role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring)
    async with roles, Asking(broker_url) as coordinators:
        flood = [
            asyncio.create_task(coordinators.look(structs.replace(_SLOW, student=str(student))))
            for student in range(MOST_EACH + 10)
        ]
        await eventually(lambda: sum(task.done() for task in flood) == 10, "those beyond one asker's are refused")
        assert slow.begun == EACH
        slow.go_on.set()
        done = await asyncio.gather(*flood, return_exceptions=True)
    assert (sum(isinstance(one, RecordsError) for one in done), done.count(None)) == (10, MOST_EACH), done


async def test_questions_of_many_askers_are_refused_beyond_the_bound_of_all(
    broker_url: str, coordinator: Coordinator, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MOST", 6)
    async with coordinator(), Asking(broker_url) as coordinators:
        asked = [
            asyncio.create_task(coordinators.look(structs.replace(_SLOW, student=str(student))))
            for student in range(10)
        ]
        await eventually(lambda: sum(task.done() for task in asked) == 4, "what is beyond is refused")
        assert slow.begun == AT_ONCE
        slow.go_on.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
    assert (sum(isinstance(one, RecordsError) for one in done), done.count("eA==")) == (4, 6), done


async def test_a_question_whose_asker_has_given_up_is_not_answered(
    broker_url: str,
    coordinator: Coordinator,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with coordinator(), Asking(broker_url) as coordinators:
        held = [asyncio.create_task(coordinators.look(_SLOW)) for _ in range(EACH)]
        await eventually(lambda: slow.begun == EACH, "the first ones are read")
        with monkeypatch.context() as impatient:
            impatient.setattr(asking, "ANSWER_WITHIN", 0.2)
            with pytest.raises(RequestTimeout):
                await coordinators.look(_SLOW)
        await coordinators.look(structs.replace(_QUICK, student="7"))  # of another asker: the slow one has arrived
        expired = time.monotonic() + 0.2
        await eventually(lambda: time.monotonic() > expired, "its time is over for the coordinator, too")
        slow.go_on.set()
        await asyncio.gather(*held)
        await coordinators.look(_QUICK)  # of the same asker, and so after it
    assert slow.begun == EACH


async def test_a_flood_of_large_questions_is_refused_by_its_bytes(
    broker_url: str, coordinator: Coordinator, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten questions wait, which is far below the number that may, and their bytes are as many as may wait."""
    large = structs.replace(_SLOW, find="x" * 100_000)
    monkeypatch.setattr(questions, "MOST_BYTES", 1_010_000)
    monkeypatch.setattr(questions, "MOST_BYTES_EACH", 505_000)
    async with coordinator(), Asking(broker_url) as coordinators:
        asked = [
            asyncio.create_task(coordinators.look(structs.replace(large, student=str(student))))
            for student in (1, 2, 3)
            for _ in range(7)
        ]
        await eventually(lambda: sum(task.done() for task in asked) == 11, "what is beyond is refused")
        small = asyncio.create_task(coordinators.look(_QUICK))
        slow.go_on.set()
        assert (await small)["total"] == 0, "there was room for a small one"
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [sum(one == "eA==" for one in done[first : first + 7]) for first in (0, 7, 14)] == [5, 5, 0], done
        assert await coordinators.look(large) == "eA==", "there is room again"


async def test_an_asker_is_told_a_slow_coordinator_from_none(
    broker_url: str, coordinator: Coordinator, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr(asking, "_LOOK_WITHIN", 30.0)  # the broker of a busy machine is slow, too
    async with Asking(broker_url) as coordinators:
        async with coordinator():
            with pytest.raises(RequestTimeout, match=r"a coordinator runs, and has not answered within 0\.2 s"):
                await coordinators.look(_SLOW)
            slow.go_on.set()
        with pytest.raises(RequestTimeout, match="no coordinator answers on this broker"):
            await coordinators.look(_SLOW)


async def test_malformed_questions_are_left_and_the_next_one_is_answered(
    broker_url: str, coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    async with coordinator(), connect(broker_url) as connection, Asking(broker_url) as coordinators:
        channel = await connection.channel()
        for body, reply_to in ((b"{", "x"), (b" " * (LONGEST + 1), "x"), (b"{}", None)):
            await channel.publish(body, routing_key=STATUS_QUEUE, properties=Properties(reply_to=reply_to))
        assert (await coordinators.look(_QUICK))["total"] == 0
    assert caplog.text.count("a question about a submission is not answered") == 3
    assert f"more than {LONGEST}" in caplog.text


@pytest.fixture
def url_4(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of RabbitMQ 4 if the tests run with one, else of the embedded broker that behaves like it."""
    if COMPAT == "4.0":
        yield request.getfixturevalue("rabbitmq_url")
        return
    with BrokerProcess("--compat", "4.0") as broker:
        yield broker.url


async def test_the_largest_answers_pass_where_more_than_16_mib_close_the_channel(
    url_4: str, tmp_path: Path, database: Database
) -> None:
    identity = await asyncio.to_thread(_confirmed, database, Files(str(tmp_path / "files")), 7, b"x")

    def grow(connection: SQLConnection, steps: range) -> None:
        hop = {
            "submission": identity,
            "role": "demonstrator",
            "status": "corrected",
            "who": "ann",
            "place": "x",
            "at": "2026",
        }
        connection.execute(insert(history), [hop | {"step": step, "remark": "\u20ac" * 33_000} for step in steps])

    async with connect(url_4) as connection:
        channel = await connection.channel()
        await channel.declare_queue("large", exclusive=True)
        with pytest.raises(ChannelClosed, match="larger than"):
            await channel.publish(b"x" * ((16 << 20) + 1), routing_key="large")
    question = msgspec.json.encode({"SubmissionID": identity})

    def asked_plainly() -> str:
        with Plain(url_4) as plain:
            return _asked_plainly(plain, question)

    async with role_set(url_4, database, [RoleSpec("coordinator")]), Asking(url_4) as coordinators:
        for steps, is_too_large in ((range(10, 88), False), (range(88, 200), True)):
            await database.write(partial(grow, steps=steps))
            told = await asyncio.to_thread(asked_plainly)
            assert (f"at most {LARGEST} are sent" in told) is is_too_large
            assert (len(told) * 3 > 0.95 * LARGEST) is not is_too_large
            found = await coordinators.ask(identity)
            assert found is not None
            assert len(found["history"]) == 4 + steps.stop - 10, "who takes it in parts gets it whole"


async def test_places_of_one_name_are_bounded_and_those_of_nobody_are_not() -> None:
    places, held, go_on = Places(3, each=1), list[str](), asyncio.Event()

    async def hold(who: str) -> None:
        async with places.turn(who):
            held.append(who)
            await go_on.wait()

    tasks = [asyncio.create_task(hold(who)) for who in ("a", "a", "b", NOBODY, NOBODY)]
    await asyncio.sleep(0)
    assert (held, places.present, places.present_of("a")) == (["a", "b", NOBODY], 5, 2)
    go_on.set()
    await asyncio.gather(*tasks)
    assert (sorted(held), places.present) == (sorted(["a", "a", "b", NOBODY, NOBODY]), 0)
