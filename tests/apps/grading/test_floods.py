"""Submissions that are too large or too many are declined with a reason, are counted, and hold up nobody."""

from functools import partial
from pathlib import Path

import pytest

from rabbitry.apps.grading import floods
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.floods import HOUR, Floods, Refusal
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, judging
from rabbitry.apps.grading.records.statistics import statistics_of
from rabbitry.apps.grading.stages import Wiring
from tests.apps.grading._running import ALL, CC, PEOPLE, Plain, arrived, recorded, role_set, submit
from tests.apps.grading.test_web import Served, form

pytestmark = pytest.mark.timeout(180)
_LARGEST = 1000


def _wiring(per_hour: int | None) -> Wiring:
    return Wiring(Course(largest_submission=_LARGEST, per_hour=per_hour))


def test_a_student_has_so_many_submissions_within_an_hour() -> None:
    now = [0.0]
    taken = Floods(2, lambda: now[0])
    assert taken.refusal("7", "m", "a") is None
    now[0] = 600.0
    assert taken.refusal("7", "m", "b") is None
    assert taken.refusal("7", "m", "a") is None, "one that comes again counts once"
    why = (
        "student 7 has handed in 2 submissions for module 'm' within an hour, and more are not taken: "
        "try again in 50 min"
    )
    assert taken.refusal("7", "m", "c") == Refusal(why, is_kept=True)
    assert taken.refusal("7", "other", "d") is None
    assert taken.refusal("8", "m", "e") is None
    now[0] = HOUR
    assert taken.refusal("7", "m", "c") is None
    assert taken.refusal("7", "m", "f") is not None
    assert all(Floods(None).refusal("7", "m", str(number)) is None for number in range(1000))


def test_the_files_of_as_many_further_ones_are_kept() -> None:
    now = [0.0]
    taken = Floods(2, lambda: now[0])
    kept = []
    for identity in ("a", "b", "c", "d", "e", "c", "e"):
        refusal = taken.refusal("7", "m", identity)
        kept.append(None if refusal is None else refusal.is_kept)
    assert kept == [None, None, True, True, False, True, False]
    now[0] = HOUR
    kept = []
    for identity in ("f", "g", "h"):
        refusal = taken.refusal("7", "m", identity)
        kept.append(None if refusal is None else refusal.is_kept)
    assert kept == [None, None, True]


def test_the_memory_for_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "MOST_KEPT", 3)
    taken = Floods(1)
    assert [taken.refusal(str(student), "m", "x") for student in range(5)] == [None] * 5
    assert len(taken._taken) == 3
    assert taken.refusal("4", "m", "y") is not None
    assert taken.refusal("0", "m", "y") is None, "who came least recently is forgotten"


async def test_a_flood_is_declined_and_others_are_marked(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    marked: list[bytes] = []

    def mark(solution: bytes, name: str) -> Decision:
        marked.append(solution)
        return Decision("automatic", 1.0, 1.0)

    wiring = _wiring(2)
    async with role_set(broker_url, one_database, ALL, wiring=wiring, files=files, markers={CC.name: mark}) as roles:
        mine = [await submit(broker_url, data=b"%d" % number) for number in range(5)]
        large = await submit(broker_url, 8, data=b"x" * (_LARGEST + 1))
        with Plain(broker_url) as plain:
            plain.send(CC.key, {"StudentID": 9, "Solution": "nine", "Module": CC.name, "status": "submitted"})
        await recorded(one_database, "confirmed", 3)
        rows = {row.id: row for row in await recorded(one_database, "declined", 4)}
        async with Asking(broker_url) as asking:
            answered = {identity: await asking.ask(identity) for identity in (mine[4], large)}
    declined = [identity for identity in mine if rows[identity].status == "declined"]
    counting = [identity for identity in mine if identity not in declined]
    assert (len(counting), len(declined), roles.declined["demonstrator_cc"]) == (2, 3, 4)
    assert b"x" * (_LARGEST + 1) not in marked
    assert len(marked) == 3
    told = answered[large]
    assert told is not None
    assert told["history"][-1]["remark"] == "the file is too large: it has 1001 bytes, and at most 1000 are taken"
    assert (told["status"], told["counts"], told["mark"]) == ("declined", False, None)
    if rows[mine[4]].status == "declined":
        assert "has handed in 2 submissions" in str(answered[mine[4]])
    judged = one_database.read_now(partial(judging.judged, rows=[*rows.values()], course=wiring.course))
    assert [identity for identity in mine if judged[identity].counts] == [
        max(counting, key=lambda identity: (rows[identity].submitted_at, identity))
    ], "what was declined is no attempt"
    assert sorted(rows[identity].attempt for identity in counting) == [1, 2]
    assert sum(rows[identity].kept is not None for identity in declined) == 2, "as many further ones as are taken"
    assert rows[large].kept is None
    found = one_database.read_now(partial(statistics_of, module=CC.name, course=wiring.course))
    assert (found["submissions"], found["declined"], found["waiting"]) == (7, 4, [])


async def test_people_s_inboxes_are_not_flooded(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database, PEOPLE, wiring=_wiring(1)):
        first, second = [await submit(broker_url, data=data) for data in (b"1", b"2")]
        other = await submit(broker_url, 8)
        items = await arrived(one_database, "demonstrator", 2)
        await recorded(one_database, "declined", 1)
    assert {item.assignment.id for item in items} == {first, other}
    assert one_database.read_now(partial(course.submission_of, given=second)).status == "declined"


async def test_the_form_refuses_one_too_many(
    broker_url: str, found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "course.toml"
    config.write_text('submissions_per_hour = 2\n[modules.cloud_computing]\nshort = "cc"\n')
    monkeypatch.setenv("RABBITRY_GRADING", str(config))
    served = Served(broker_url, found_url)
    with Database(found_url) as database:
        async with served.pages.open(), served.http as http, role_set(broker_url, database):
            for number in range(2):
                assert (await http.post("/api/submissions", **form(data=b"%d" % number))).status_code == 200
            await recorded(database, "confirmed", 2)
            answer = await http.post("/api/submissions", **form(data=b"more"))
            assert (answer.status_code, "more are not taken: try again in" in answer.json()["error"]) == (400, True)
            assert (await http.post("/api/submissions", **form(student="8"))).status_code == 200
