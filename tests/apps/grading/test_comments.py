"""Comments on lines of a submitted file: through all roles, signed, kept when it is marked again, and their limits."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rabbitry.apps.grading.comments import (
    LONGEST,
    MOST,
    LineComment,
    check_comments,
    comments_of,
    number_of_lines,
    place_of,
)
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.message import HISTORY, LONGEST_NAME, Assignment, Decision, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, judging, regrading
from rabbitry.apps.grading.records.regrading import Selection
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.apps.grading.showing import MOST_COMMENTS, comments_in
from rabbitry.apps.grading.signatures import Key, Signatures, Signer, new_key
from rabbitry.apps.grading.stages import Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading import _running
from tests.apps.grading._running import CC, PEOPLE, Plain, arrived, recorded, role_set
from tests.apps.grading.test_contents import zipped
from tests.apps.grading.test_pipeline import read_results

pytestmark = pytest.mark.timeout(180)
_PEM, _PUBLIC = new_key()
_WORK = zipped(("src/ü.py", b"x = 1\ny = 2\n"), ("b.ipynb", b"{}"))
_OFFICE = Key("office", _PUBLIC, ("demonstrator", "assistant", "coordinator"))


def test_a_line_feed_at_the_end_begins_no_line() -> None:
    assert [number_of_lines(text) for text in ("", "a", "a\n", "a\r\nb", "\n\n")] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("comments", "solution", "why"),
    [
        ([LineComment(0, "x")], "a\nb\n", "line 0, and lines and cells are counted from 1, lines here to 2"),
        ([LineComment(3, "x")], "a\nb\n", "line 3, and lines .* to 2"),
        ([LineComment(1, "x", cell=0)], "a", "a comment on cell 0, line 1"),
        ([LineComment(1, " \n")], "a", "must have 1 to"),
        ([LineComment(1, "x" * (LONGEST + 1))], "a", "must have 1 to"),
        ([LineComment(1, "x")] * (MOST + 1), "a", f"at most {MOST}"),
        ([LineComment(1, "x" * LONGEST)] * 51, "a", "characters in all"),
        ([LineComment(1, "x")], None, "is not text"),
        ([LineComment(1, "x", file="a.py")], "a", "a comment on a.py, line 1, and the submission is no archive"),
    ],
)
def test_what_can_be_no_comment_is_refused(comments: list[LineComment], solution: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_comments(comments, solution)


def test_a_comment_in_an_archive_names_its_file() -> None:
    check_comments([LineComment(9, "x", cell=2, file="a/b.py")], None, is_archive=True)
    for file, why in ((None, "name the file in it"), ("", "1 to 1000"), ("x" * 1_001, "1 to 1000")):
        with pytest.raises(UsageError, match=why):
            check_comments([LineComment(1, "x", file=file)], None, is_archive=True)
    with pytest.raises(UsageError, match="characters in all"):
        check_comments([LineComment(1, "x", file="p" * 1_000)] * 100, None, is_archive=True)
    places: list[dict[str, Any]] = [
        {"line": 3},
        {"line": 3, "cell": 2, "file": None},
        {"line": 3, "cell": 2, "file": "a.ipynb"},
    ]
    assert [place_of(one) for one in places] == ["line 3", "cell 2, line 3", "a.ipynb, cell 2, line 3"]


def test_comments_of_other_programs_are_checked_one_by_one() -> None:
    good: dict[str, Any] = {"line": 2, "text": "good", "more": 1}
    bad: list[Any] = [
        None, [], 7, {}, {"line": 1}, {"line": True, "text": "x"}, {"line": 1.0, "text": "x"}, {"line": 0, "text": "x"},
        {"line": 1 << 40, "text": "x"}, {"line": 1, "text": "x", "cell": "1"},
        {"line": 1, "text": 7}, {"line": 1, "text": ""},
        {"line": 1, "text": "x" * (LONGEST + 1)}, {"line": 1, "text": "x", "file": 7},
        {"line": 1, "text": "x", "file": ""}, {"line": 1, "text": "x", "file": "x" * 1_001},
    ]  # fmt: skip
    first = {"line": 1, "text": "\ud800"}
    assert comments_of({"comments": [*bad, good, first]}) == (LineComment(1, "?"), LineComment(2, "good"))
    inside = {"line": 1, "text": "x", "file": "\ud800.py"}
    assert comments_of({"comments": [inside, good]}) == (LineComment(2, "good"), LineComment(1, "x", file="?.py"))
    assert len(comments_of({"comments": [good] * 1_000})) == MOST
    assert len(comments_of({"comments": [{"line": 1, "text": "x", "file": "p" * 999}] * MOST})) == 100
    assert len(comments_of({"comments": [{"line": 1, "text": "x" * LONGEST}] * MOST})) == 50
    for given in (None, "x", 7, {"line": 1, "text": "x"}):
        assert comments_of({"comments": given}) == ()


def test_comments_are_signed_with_their_hop() -> None:
    signatures = Signatures({_PUBLIC: _OFFICE}, "refuse")
    made = submission(7, CC.name, b"x = 1\n", "x.py", "a1")
    decision = Decision("ann", 8.0, 10.0, comments=(LineComment(1, "why?"),))
    made = Signer(_PEM).sign(decide(made, ROLES["demonstrator"], "correct", decision))
    assert made[HISTORY][1]["comments"] == [{"line": 1, "text": "why?"}]
    assert signatures.findings(made)[1].signer == "office"
    made[HISTORY][1]["comments"][0]["text"] = "well done"
    assert signatures.findings(made)[1].is_forged


def test_names_and_number_of_comments_shown_are_bounded() -> None:
    hop = {"role": ["x"] * 1_000, "who": "w" * 1_000_000, "comments": [{"line": 1, "text": "x"}] * MOST}
    last = {"role": "assistant", "who": "ben", "comments": [{"line": 2, "text": "y"}]}
    found = comments_in([hop] * 10 + [last])
    assert len(found) == MOST_COMMENTS
    assert found[-1] == {"line": 2, "text": "y", "cell": None, "file": None, "role": "assistant", "who": "ben"}
    assert max(len(one[name]) for one in found for name in ("role", "who")) == LONGEST_NAME
    assert comments_in([last, hop])[0]["who"] == "ben"
    assert comments_in([{"comments": 7}, {}]) == []


async def test_comments_travel_through_all_roles_and_stay_when_it_is_marked_again(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files, signer = Files(str(tmp_path / "kept")), Signer(_PEM)
    signatures = Signatures({_PUBLIC: _OFFICE}, "refuse")
    wiring = Wiring(replace(Course(), signatures=signatures))
    first = LineComment(1, "a name that says more?\n\0 ü", file="src/ü.py")
    second = LineComment(2, "right", cell=3, file="b.ipynb")

    async def decided(role: str, action: str, decision: Decision) -> None:
        (item,) = await arrived(one_database, role)
        await _running.decide(one_database, item, action, decision)

    async def all_decide(comments: tuple[LineComment, ...]) -> None:
        await decided("demonstrator", "correct", Decision("ann", 5.0, 10.0, comments=comments))
        await decided("assistant", "validate", Decision("ben", comments=(second,)))
        await decided("coordinator", "confirm", Decision("cleo"))

    async with role_set(broker_url, one_database, PEOPLE, wiring=wiring, files=files, signer=signer):
        with Plain(broker_url) as plain:
            read_results(plain)
            mine = await _running.submit(broker_url, data=_WORK, name="work.zip")
            await all_decide((first,))
            await asyncio.to_thread(plain.take, "results_queue")
            assert await one_database.write(partial(_reopened, mine))
            await all_decide(())
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
        await recorded(one_database, "confirmed", 1)
    shown = await one_database.read(partial(judging.described, given=mine, course=Course()))
    by_role = [(hop["role"], [one["text"] for one in hop["comments"]]) for hop in shown["history"] if hop["comments"]]
    assert by_role == [
        ("demonstrator", [first.text]), ("assistant", ["right"]), ("assistant", ["right"])
    ]  # fmt: skip
    assert [hop.get("comments") for hop in result[HISTORY] if hop["role"] == "demonstrator"] == [
        [{"line": 1, "text": first.text, "file": "src/ü.py"}], None
    ]  # fmt: skip
    assert signatures.check(Assignment(result)).signer == "office"


def _reopened(identity: str, connection: Any) -> Assignment | None:
    """Have a submission marked again, as the command does."""
    run = regrading.begin(connection, Selection(CC.name), Course(), "cleo", "once more")
    assert run.left == (identity,)
    assert course.submission_of(connection, identity).status == "confirmed"
    return regrading.reopen(connection, run, identity, _WORK, Course(), "assignment_exchange")


async def test_an_archive_is_shown_and_commented_on_by_command(
    broker_url: str, found_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = int(_root.run(("grading", "inbox", *arguments)))
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    with Database(found_url) as database:
        async with role_set(broker_url, database, PEOPLE):
            mine = await _running.submit(broker_url, data=_WORK, name="work.zip")
            await arrived(database, "demonstrator")
        code, said = await asyncio.to_thread(run, "show", mine)
        assert (code, said.splitlines()[-3:-1]) == (0, ["         2  b.ipynb", "        12  src/ü.py"])
        code, said = await asyncio.to_thread(run, "show", mine, "--path", "src/ü.py", "--lines")
        assert (code, said.splitlines()[-2:]) == (0, ["1  x = 1", "2  y = 2"])
        code, said = await asyncio.to_thread(run, "show", mine, "--path", "c.py")
        assert (code, "has no file 'c.py'" in said) == (1, True)
        for wrong, why in (("1=Why?", "name the file in it"), ("src/ü.py=Why?", "FILE:LINE=TEXT for an archive")):
            code, said = await asyncio.to_thread(run, "decide", mine, "--mark", "1", "--comment", wrong)
            assert (code, why in said) == (2, True), said
        typed = ("--comment", "src/ü.py:2=see x: 1=2", "--comment", "b.ipynb:1:3=a cell")
        code, said = await asyncio.to_thread(run, "decide", mine, "--mark", "1", *typed)
        assert code == 0, said
        async with role_set(broker_url, database, PEOPLE):
            (item,) = await arrived(database, "assistant")
        code, said = await asyncio.to_thread(run, "show", mine, "--role", "assistant")
    assert comments_of(item.assignment.history[-1]) == (
        LineComment(3, "a cell", 1, "b.ipynb"), LineComment(2, "see x: 1=2", None, "src/ü.py")
    )  # fmt: skip
    assert "): see x: 1=2" in said
    assert "comment   src/ü.py, line 2 (" in said
