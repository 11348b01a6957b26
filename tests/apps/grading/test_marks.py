"""Marking schemes in the pipeline: marks and feedback of submissions that ran and of refused ones."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Literal

import pytest

import rabbitry
from rabbitry.apps.grading.exceptions import SchemeInvalid
from rabbitry.apps.grading.marks import marker_of, markers_for
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.apps.grading.students import Submitter
from tests.apps.grading._running import ALL, CC, recorded, role_set
from tests.support import programs

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course whose cloud_computing has a scheme."""
    (tmp_path / "scheme.toml").write_text(
        '[scheme]\nname = "Hello"\nfile = "hello.py"\n\n'
        '[[part]]\nname = "says hello"\npoints = 3\ncommand = ["python3", "hello.py"]\nexpect = { exact = "hello" }\n'
    )
    config = tmp_path / "course.toml"
    config.write_text(
        '[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n[modules.data_mining]\nshort="dm"'
    )
    return load_course(config)


def _climbing() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("../../outside.py", "x")
    return data.getvalue()


async def test_a_scheme_marks_submissions(
    course: Course, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    programs.require(None if shutil.which("bwrap") else "bubblewrap is not installed")
    wiring, markers = Wiring(course), markers_for(course, ALL)
    assert list(markers) == ["cloud_computing"]
    async with (
        role_set(broker_url, one_database, wiring=wiring, markers=markers),
        Submitter(wiring, broker_url) as submitter,
    ):
        await submitter.submit(1, CC, b"print('hello')\n", "hello.py")
        await submitter.submit(2, CC, b"print('goodbye')\n", "hello.py")
        await submitter.submit(3, CC, _climbing(), "hello.zip")
        await submitter.submit(4, course.module("data_mining"), b"x", "x.py")
        found = await recorded(one_database, "confirmed", 4)
    marks = {one.student: (one.mark, one.out_of) for one in found}
    assert marks == {"1": (3.0, 3.0), "2": (0.0, 3.0), "3": (0.0, 3.0), "4": (None, None)}
    feedback = {one.student: one.feedback or "" for one in found}
    assert "says hello" in feedback["1"]
    assert "goodbye" in feedback["2"]
    assert feedback["3"].startswith("refused: ")
    assert "outside.py" in feedback["3"]
    assert not (tmp_path.parent / "outside.py").exists()


def test_only_needed_schemes_are_read(course: Course, tmp_path: Path) -> None:
    (tmp_path / "scheme.toml").write_text("[scheme\n")
    dm = RoleSpec("demonstrator", course.module("data_mining"))
    assert markers_for(course, [dm, RoleSpec("assistant"), RoleSpec("demonstrator", CC, person=True)]) == {}
    with pytest.raises(SchemeInvalid, match=r"demonstrator of module 'cloud_computing' can't run: .*scheme\.toml:1"):
        markers_for(course, [RoleSpec("demonstrator")])
    with pytest.raises(SchemeInvalid, match=r"scheme\.toml:1"):
        markers_for(course, [RoleSpec("demonstrator", course.module("cloud_computing"))])


@pytest.mark.parametrize("exchange_type", ["direct", "fanout"])
async def test_a_broken_scheme_stops_only_its_demonstrator(
    course: Course,
    broker_url: str,
    one_database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    exchange_type: Literal["direct", "fanout"],
) -> None:
    scheme = tmp_path / "scheme.toml"
    right = scheme.read_text()
    scheme.write_text("[scheme\n")
    specs = [RoleSpec("demonstrator", module) for module in (*course.modules.values(), None)]
    specs += [RoleSpec("assistant"), RoleSpec("coordinator")]
    markers = markers_for(course, specs)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert "demonstrator of module 'cloud_computing' does not run" in said[0]
    assert "scheme.toml:1: " in said[0]
    wiring = Wiring(course, f"exchange_{exchange_type}", exchange_type)
    async with role_set(broker_url, one_database, specs, wiring=wiring, markers=markers):
        async with Submitter(wiring, broker_url) as submitter:
            waits = await submitter.submit(1, course.module("cloud_computing"), b"print('hello')\n", "hello.py")
            await submitter.submit(2, course.module("data_mining"), b"x", "x.py")
        await recorded(one_database, "confirmed", 1)
    scheme.write_text(right)
    async with role_set(broker_url, one_database, specs, wiring=wiring, markers=markers_for(course, specs)):
        found = await recorded(one_database, "confirmed", 2)
    assert [one.mark for one in found if one.id == waits] == [3.0]


async def test_a_submission_for_a_broken_scheme_by_the_common_key_is_a_dead_letter(
    course: Course, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    (tmp_path / "scheme.toml").write_text("[scheme\n")
    specs = [RoleSpec("demonstrator"), RoleSpec("coordinator")]
    wiring, markers = Wiring(course), markers_for(course, specs)
    body = b'{"StudentID": 1, "Solution": "x", "Module": "cloud_computing", "status": "submitted"}'
    async with role_set(broker_url, one_database, specs, wiring=wiring, markers=markers):
        async with rabbitry.connect(broker_url) as connection:
            channel = await connection.channel()
            await channel.publish(body, exchange=wiring.exchange, routing_key="correction")
            async with channel.consume("grading.dead") as letters:
                letter = await anext(aiter(letters))
                letter.ack()
    assert "scheme.toml:1" in str((letter.properties.headers or {})["x-rabbitry-error"])


def test_a_scheme_is_loaded_again_when_its_file_has_changed(
    course: Course, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs.require(None if shutil.which("bwrap") else "bubblewrap is not installed")
    caplog.set_level("INFO")
    path = tmp_path / "scheme.toml"
    mark = marker_of(path, course)
    text = path.read_text()

    def points() -> float | None:
        return mark(b"print('hello')\n", "hello.py").mark

    assert points() == 3.0
    path.write_text(text.replace("points = 3", "points = 4.5"))
    assert points() == 4.5
    assert "has changed, and was loaded again" in caplog.text
    path.write_text("[scheme")
    assert (points(), points()) == (4.5, 4.5)
    assert caplog.text.count("is not used, but the one before it") == 1
    path.unlink()
    assert points() == 4.5
    path.write_text(text.replace("points = 3", "points = 5"))
    assert points() == 5.0
