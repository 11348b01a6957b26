"""The similar solutions of a module: from the records, on the command line and the page."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.lexing import Lexing
from rabbitry.apps.grading.looking import Look, rows
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.records.course import Submission
from rabbitry.apps.grading.similar import course
from rabbitry.apps.grading.similar.course import Search, compared, counting, similar
from rabbitry.cli import _root
from rabbitry.exceptions import RabbitryError, UsageError
from tests.apps.grading._running import ON_BOTH_DATABASES
from tests.apps.grading.similar.programs import DISGUISED, ORIGINAL, OWN, STARTER
from tests.apps.grading.test_contents import zipped
from tests.apps.grading.test_lexing import HOSTILE
from tests.apps.grading.test_regrading import _confirmed, course_of
from tests.apps.grading.test_web import Served
from tests.support.waiting import eventually_awaited

pytestmark = pytest.mark.timeout(180)


def _filled(database: Database, url: str) -> list[str]:
    """Record a superseded copy of a program and what counts: of three students, two are similar, one in an archive."""
    files = Files(default_place(url))
    packed, unsafe = zipped(("work/main.py", DISGUISED.encode())), zipped(("../a.py", b"x"))
    original = ORIGINAL.encode()
    handed_in = [(7, original), (8, original), (8, packed), (9, OWN.encode()), (10, b"\0"), (11, unsafe)]
    return [
        _confirmed(database, files, student, data, name="x.zip" if data.startswith(b"PK") else "x.py")
        for student, data in handed_in
    ]


def _counting(database: Database) -> list[Submission]:
    asked = Look("rows", module="cloud_computing")
    return counting(database.read_now(partial(rows, asked=asked, course=Course())))


def test_the_submissions_that_count_are_compared(database: Database, database_url: str) -> None:
    ids = _filled(database, database_url)
    files = Files(default_place(database_url))
    found = similar(_counting(database), files, Search("cloud_computing"))
    assert [(pair["one"]["student"], pair["other"]["student"]) for pair in found.pairs] in ([("7", "8")], [("8", "7")])
    assert {found.pairs[0]["one"]["id"], found.pairs[0]["other"]["id"]} == {ids[0], ids[2]}
    unsafe = "the archive contains a name with `..`, which is not allowed: '../a.py'"
    assert (found.compared, found.left_out) == (3, {ids[4]: "there is no text to compare", ids[5]: unsafe})
    stopped = partial(similar, is_wanted=lambda: False)
    with pytest.raises(RabbitryError, match="was stopped"):
        stopped(_counting(database), files, Search("cloud_computing"))


def test_a_submission_that_takes_too_long_is_left_out(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "Lexing", partial(Lexing, 1))
    files = Files(str(tmp_path / "files"))
    hostile = _confirmed(database, files, 7, f"a = 1{HOSTILE}".encode())
    own = _confirmed(database, files, 8, b"a = 1")
    found = similar(_counting(database), files, Search("cloud_computing"))
    why = "it could not be compared: not read within 1 s of CPU time"
    assert (found.compared, found.left_out) == (1, {hostile: why})
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(UsageError, match=f"{hostile} and {own} could not be compared: not read: FileNotFoundError"):
        compared(files, course_of(database, hostile), course_of(database, own), Course())


@ON_BOTH_DATABASES
async def test_the_command_and_the_page_find_them(
    found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "starter.py").write_text(STARTER)
    config = tmp_path / "course.toml"
    config.write_text('[modules.cloud_computing]\nshort = "cc"\nstarter = ["starter.py"]\n')
    monkeypatch.setenv("RABBITRY_GRADING", str(config))
    assert load_course().module("cloud_computing").starter == (tmp_path / "starter.py",)
    with Database(found_url) as database:
        ids = await asyncio.to_thread(_filled, database, found_url)
    command = ("grading", "similar", "--module", "cloud_computing", "--json")
    assert await asyncio.to_thread(_root.run, command) == 0
    said = capsys.readouterr()
    (pair,) = [json.loads(line) for line in said.out.splitlines()]
    assert {pair["one"]["id"], pair["other"]["id"]} == {ids[0], ids[2]}
    assert "there is no text to compare" in said.err
    assert await asyncio.to_thread(_root.run, (*command, "--starter", str(tmp_path / "nothing"))) == 2

    served = Served("amqp://127.0.0.1:1/", found_url)
    async with served.pages.open(), served.http:
        wanted = {"module": "cloud_computing"}
        assert (await served.http.get("/api/similar", params=wanted)).json()["at"] is None
        assert (await served.http.post("/api/similar", json=wanted)).json()["is_running"]

        async def found() -> bool:
            return not (await served.http.get("/api/similar", params=wanted)).json()["is_running"]

        await eventually_awaited(found, "the comparison has ended")
        (pair,) = (await served.http.get("/api/similar", params=wanted)).json()["pairs"]
        both = (await served.http.get(f"/api/similar/{pair['one']['id']}/{pair['other']['id']}")).json()
        assert {"".join(part["text"] for part in both[side]["parts"]) for side in ("one", "other")} == {
            ORIGINAL,
            DISGUISED,
        }
        marked = "".join(part["text"] for part in both["one"]["parts"] if part["block"])
        assert "heappop" in marked
        assert "enumerate" not in marked
        monkeypatch.setattr(course, "pairs", None)  # as a fault in the comparison
        assert (await served.http.post("/api/similar", json=wanted)).json()["is_running"]
        await eventually_awaited(found, "the comparison has failed")
        told = (await served.http.get("/api/similar", params=wanted)).json()["error"]
        assert told.startswith("comparing failed: TypeError")
        for other, why in ((ids[4], "no text to compare"), (ids[5], "a name with `..`")):
            answer = await served.http.get(f"/api/similar/{ids[0]}/{other}")
            assert (answer.status_code, why in answer.json()["error"]) == (400, True)
