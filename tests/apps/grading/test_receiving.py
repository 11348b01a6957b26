"""Students cannot forge the history of a message."""

from typing import Any

import pytest

from rabbitry.apps.grading.message import Decision, now
from rabbitry.apps.grading.receiving import new_id, receive, sealed, taken_at, was_sent_back
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.flow.exceptions import Reject
from tests.apps.grading.test_message import FOUR, message

STUDENT = {"role": "student", "status": "submitted", "who": "joe", "where": "home", "when": "2001-01-01T00:00:00+00:00"}
CORRECTED = {"role": "demonstrator", "status": "corrected", "who": "ann", "mark": 3}
BACK = {"role": "assistant", "status": "submitted", "who": "bob", "remark": "again"}


@pytest.mark.parametrize(
    "forged",
    [
        {"Mark": 10, "OutOf": 10, "Feedback": "splendid", "Remarks": ["give full marks"]},
        {"History": [STUDENT]},
        {"History": [STUDENT] * 5_000},
        {"History": [STUDENT, CORRECTED]},
        {"History": [STUDENT, CORRECTED, BACK], "Remarks": []},
        {"History": [STUDENT, CORRECTED, BACK], "Remarks": ["another"]},
        {"History": [STUDENT, CORRECTED, BACK | {"remark": ""}], "Remarks": [""]},
        {"History": [BACK | {"role": "student"}], "Remarks": ["again"]},
        {"History": "x", "Remarks": {"a": 1}},
        {"History": [1], "Remarks": 7},
        {"History": None, "Remarks": None, "Mark": "10"},
        {"attempt": 99, "submitted_at": "2001-01-01", "latest": True},
    ],
)
def test_the_first_role_begins_the_history_itself(forged: dict[str, Any]) -> None:
    before = now()
    taken = receive(FOUR | forged, message(), first=True)
    (hop,) = taken.history
    assert (hop["role"], hop["status"]) == ("student", "submitted")
    assert before <= hop["when"] <= now()
    assert not {"Mark", "OutOf", "Feedback", "Remarks"} & set(taken)
    assert {name: taken[name] for name in FOUR} == FOUR


def test_the_submitter_is_named_by_the_students_program() -> None:
    (hop,) = receive(FOUR | {"History": [STUDENT | {"who": "j" * 900}]}, message(), first=True).history
    assert (hop["who"], hop["where"]) == ("j" * 200, "home")
    (hop,) = receive(FOUR | {"History": [STUDENT | {"role": "coordinator"}]}, message(), first=True).history
    assert (hop["who"], hop["where"]) == ("23200858", "unknown")


@pytest.mark.parametrize(
    "hops", [[STUDENT, CORRECTED, BACK], [STUDENT, CORRECTED], [BACK], [BACK | {"role": "coordinator"}]]
)
def test_an_assignment_sent_back_keeps_its_history(hops: list[dict[str, Any]]) -> None:
    fields = FOUR | {"History": hops, "Remarks": ["first", "again"], "Mark": 3}
    assert was_sent_back(fields)
    taken = receive(fields, message(), first=True)
    assert (taken.history, taken.remarks, taken["Mark"]) == (hops, ["first", "again"], 3)


def test_an_id_stays_over_all_hops_and_rounds() -> None:
    fields = FOUR | {"SubmissionID": (identity := new_id(FOUR))}
    taken = receive(fields, message(), first=True)
    corrected = decide(taken, ROLES["demonstrator"], "correct", Decision("ann", 3.0))
    back = decide(
        receive(corrected, message(), first=False), ROLES["assistant"], "send-back", Decision("b", remark="x")
    )
    assert receive(back, message(), first=True).id == identity
    other = receive(FOUR | {"SubmissionID": "hw1"}, message(), first=True)
    assert other.id.startswith("hw1.")
    assert receive(other, message(), first=False).id == other.id
    assert receive(FOUR | {"SubmissionID": "hw1"}, message(), first=True).id == other.id  # it was redelivered


@pytest.mark.parametrize("change", [{"StudentID": 666}, {"Solution": "y"}, {"Module": "data_mining"}])
@pytest.mark.parametrize(
    "identity",
    [new_id(FOUR), sealed("hw1", FOUR), "hw1", "x" * 64, "../" * 30],
    ids=[
        "new",
        "sealed",
        "foreign",
        "long",
        "path",
    ],  # an id is random; both processes of a run must give the test the same name
)
def test_an_id_of_another_submission_is_replaced(identity: str, change: dict[str, Any]) -> None:
    mine = receive(FOUR | {"SubmissionID": identity}, message(), first=True).id
    for first in (True, False):
        theirs = receive(FOUR | {"SubmissionID": mine, "status": "submitted"} | change, message(), first=first).id
        assert theirs != mine
        assert len(theirs) <= 64


def test_the_time_of_taking_comes_only_from_the_first_correction() -> None:
    assert taken_at([STUDENT, CORRECTED, {"status": "validated"}]) == STUDENT["when"]
    ways: list[list[dict[str, Any]]] = [
        [],
        [STUDENT],
        [STUDENT, BACK],
        [STUDENT, CORRECTED, BACK, CORRECTED],
        [STUDENT, CORRECTED, CORRECTED],
    ]
    assert [taken_at(hops) for hops in ways] == [None] * len(ways)


def test_a_deeply_nested_assignment_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(Reject, match="nested deeper"):
        receive(FOUR | {"Extra": deep}, message(), first=True)
