"""The rubric of a module: on the page, on the command line, and what is refused."""

import json
from functools import partial
from pathlib import Path

import pytest

from rabbitry.apps.grading.message import Decision, submission
from rabbitry.apps.grading.modules import load_course
from rabbitry.apps.grading.personal import Points
from rabbitry.apps.grading.records import Database, inbox, outbox
from rabbitry.apps.grading.roles import ROLES
from rabbitry.apps.grading.rubric import Criterion, Score, scored
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading.test_web import Served

_RUBRIC = (Criterion("Style", 0.3, ("Name things.", "Too long.")), Criterion("Analysis", 7.5))
_TOML = """
undo = 0
[modules.cloud_computing]
short = "cc"
[[modules.cloud_computing.rubric]]
name = "Style"
points = 0.3
comments = ["Name things.", "Too long."]
[[modules.cloud_computing.rubric]]
name = "Analysis"
points = 7.5
"""


def test_the_mark_is_the_exact_sum_and_the_feedback_lists_the_criteria() -> None:
    scores = {"Analysis": Score(0.2), "Style": Score(0.1, ("Too long.", " ", "Own words."))}
    assert scored(_RUBRIC, scores, Decision("ann", feedback=" Well done. ")) == Decision(
        "ann",
        0.3,
        7.8,
        "Style: 0.1 of 0.3\n    Too long.\n    Own words.\nAnalysis: 0.2 of 7.5\n\nWell done.",
        criteria=(Points("Style", 0.1, 0.3), Points("Analysis", 0.2, 7.5)),
    )


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({"Style": Score(0.1)}, "no points for criterion 'Analysis'"),
        ({"Style": Score(0.4), "Analysis": Score(1)}, "gives 0 to 0.3 points"),
        ({"Style": Score(-1), "Analysis": Score(1)}, "gives 0 to 0.3 points"),
        ({"Style": Score(float("nan")), "Analysis": Score(1)}, "gives 0 to 0.3 points"),
        ({"Wit": Score(1)}, "unknown criterion 'Wit': use Style, Analysis"),
    ],
)
def test_an_incomplete_judgement_is_refused(scores: dict[str, Score], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        scored(_RUBRIC, scores, Decision("ann"))


def test_points_without_a_rubric_are_no_mark_of_0_out_of_0() -> None:
    with pytest.raises(UsageError, match="the module has no rubric"):
        scored((), {}, Decision("ann"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rubric = 3", "rubric must be"),
        ("rubric = [1]", "rubric must be"),
        ('rubric = [{ name = "a" }]', "criterion 1 of rubric: points is None"),
        ('rubric = [{ name = "a", points = 0 }]', "points is 0"),
        ('rubric = [{ name = " ", points = 1 }]', "name is ' '"),
        ('rubric = [{ name = "a", points = 1, weight = 2 }]', "unknown key 'weight'"),
        ('rubric = [{ name = "a", points = 1, comments = "x" }]', "comments must be"),
        ('rubric = [{ name = "a", points = 1 }, { name = "a", points = 1 }]', "two criteria of rubric are called 'a'"),
    ],
)
def test_a_rubric_that_makes_no_sense_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "grading.toml"
    path.write_text(f'[modules.x]\nshort = "x"\n{text}\n')
    with pytest.raises(UsageError, match=r"grading.toml: \[modules.x\]") as error:
        load_course(path)
    assert why in str(error.value)


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Records with two submissions in the inbox of the demonstrator of a module with a rubric."""
    (tmp_path / "grading.toml").write_text(_TOML)
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))
    url = database_url
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    put = partial(inbox.put, role=ROLES["demonstrator"], exchange="assignment_exchange", message="m")
    with Database(url) as database:
        for identity in ("a1", "b1"):
            database.write_now(partial(put, assignment=submission(7, "cloud_computing", b"x", "x.py", identity)))
    return url


async def test_people_judge_by_the_rubric_on_the_page(url: str) -> None:
    served = Served("amqp://127.0.0.1:1/", url)
    async with served.pages.open(), served.http as http:
        opened = (await http.get("/api/inbox/demonstrator/a1")).json()
        assert [(one["name"], one["points"], len(one["comments"])) for one in opened["rubric"]] == [
            ("Style", 0.3, 2),
            ("Analysis", 7.5, 0),
        ]
        style, analysis = {"points": 0.1, "comments": ["Too long."]}, {"points": 7}
        for scores in ({"Style": style}, {"Style": style, "Analysis": {"points": 8}}, {"Style": {"points": "x"}}):
            answer = await http.post("/api/inbox/demonstrator/a1", json={"action": "correct", "scores": scores})
            assert answer.status_code == 400, answer.text
        scores = {"Style": style, "Analysis": analysis}
        answer = await http.post("/api/inbox/demonstrator/a1", json={"action": "correct", "scores": scores})
        assert answer.json() == {"id": "a1", "status": "corrected"}
    with Database(url) as database:
        sent = [json.loads(one.body) for one in database.write_now(partial(outbox.claim, roles=["demonstrator"]))]
    assert (sent[0]["Mark"], sent[0]["OutOf"]) == (7.1, 7.8)
    assert sent[0]["Feedback"] == "Style: 0.1 of 0.3\n    Too long.\nAnalysis: 7 of 7.5"


def test_people_judge_by_the_rubric_on_the_command_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = int(_root.run(("grading", "inbox", "decide", "b1", *arguments)))
        return code, *capsys.readouterr()

    for arguments, why in (
        (("--score", "Style"), "is not CRITERION=POINTS"),
        (("--score", "Style=x"), "is not CRITERION=POINTS"),
        (("--score", "Style=0.1"), "no points for criterion 'Analysis'"),
        (("--score", "Style=0.1", "--score", "Analysis=7", "--mark", "3"), "--score is for a correction, without"),
    ):
        code, _, told = run(*arguments)
        assert (code, why in told) == (2, True), told
    assert run("--score", "Style=0,1", "--score", "Analysis=7")[:2] == (0, "b1  corrected  7.1 of 7.8\n")
