"""Messages of assignments: kept fields, refused messages, and encoded solutions."""

from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.apps.grading.message import Assignment, Decision, Progress, identity, readable, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.roles import ROLES, decide, key_of
from rabbitry.exceptions import UsageError

FOUR: dict[str, Any] = {"StudentID": 23200858, "Solution": "x", "Module": "cloud_computing", "status": "submitted"}


def message(identity_: str = "m1", correlation: str = "c1") -> rabbitry.Message:
    """Make a message's metadata."""
    return rabbitry.Message(identity_, correlation, 1, "s", "q", "e", "k", None, None, None, None, {})


def test_every_field_is_kept_on_every_hop() -> None:
    fields = FOUR | {"Extra": {"deep": [1, None, 2.5]}, "history": "not ours"}
    assignment = Assignment.received(fields, message())
    for role in ROLES.values():
        assignment = decide(assignment, role, role.actions[0], Decision("ann"))
    assert {name: assignment[name] for name in fields} == fields | {"status": "confirmed"}
    assert list(assignment)[:4] == list(FOUR)
    hops = [(hop["role"], hop["status"], hop["who"]) for hop in assignment.history]
    assert hops == [
        ("demonstrator", "corrected", "ann"),
        ("assistant", "validated", "ann"),
        ("coordinator", "confirmed", "ann"),
    ]
    assert all(hop["when"] and hop["where"] for hop in assignment.history)


def test_the_input_is_not_touched() -> None:
    assignment = Assignment.received(dict(FOUR), message())
    before = dict(assignment)
    assignment.moved("corrected", "demonstrator", Decision("ann", mark=3.0, feedback="why"))
    assert dict(assignment) == before


@pytest.mark.parametrize(
    "data", [b"print('hello')\n", "ünïcode ✓".encode(), b"\xff\xfe\0binary", bytes(1000), b"line\r\nline\r"]
)
def test_a_solution_is_decoded_unchanged(data: bytes) -> None:
    made = submission(1, "m", data, "file.bin", "id1")
    assert made.solution() == data
    assert made.get("SolutionEncoding") == ("base64" if b"\0" in data else None)
    assert (made.name, made.status, made.step, made["StudentID"]) == ("file.bin", "submitted", 1, 1)


def test_a_solution_with_many_control_characters_is_sent_as_base64() -> None:
    assert len(msgspec.json.encode(submission(7, "m", bytes(30_000), "zeros", "id"))) < 42_000
    assert submission(7, "m", b"a\tb\r\n\f", "text", "id")["Solution"] == "a\tb\r\n\f"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x = 1\r\n", "x = 1\r\n"),
        ("// größer €\n".encode("cp1252"), "// größer €\n"),
        ("ä\n".encode("utf-16"), "ä\n"),
        ("ä\n".encode("utf-16-be"), None),  # without a byte order mark
        (b"\xfe\xff\0a\0\n", "a\n"),
        (b"\xff\xfe\0\0", None),
        (b"\xff\xfea", "\ufffd"),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"a\0", None),
        (b"", ""),
    ],
)
def test_a_file_is_read_as_text_in_the_encodings_of_editors(data: bytes, text: str | None) -> None:
    assert readable(data) == text
    assert submission(1, "m", data, "x.py", "id").readable_text() == text


def test_invalid_base64_is_refused() -> None:
    assignment = Assignment.received(FOUR | {"SolutionEncoding": "base64", "Solution": "???"}, message())
    with pytest.raises(rabbitry.Reject, match="no base64"):
        assignment.solution()


def test_an_answer_is_a_solution_too() -> None:
    assignment = Assignment.received({"StudentID": 1, "Answer": "42", "status": "submitted"}, message())
    assert assignment.solution() == b"42"
    assert key_of(assignment, Course()) == "correction"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"StudentID": None}, "StudentID is"),
        ({"StudentID": True}, "StudentID is"),
        ({"StudentID": " "}, "StudentID is"),
        ({"StudentID": [1]}, "StudentID is"),
        ({"StudentID": "9" * 300}, "200 characters"),
        ({"Module": 7}, "Module is 7"),
        ({"History": "x"}, "History is not a list"),
        ({"History": [1]}, "History is not a list"),
        ({"History": [{}] * 1000}, "in a loop"),
        ({"Remarks": {"a": 1}}, "Remarks is not a list"),
    ],
)
def test_invalid_assignments_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(rabbitry.Reject, match=text) as caught:
        Assignment.received(FOUR | change, message())
    assert caught.value.reason == "rejected"


def test_ids_come_from_the_body_then_the_first_message_then_from_us() -> None:
    assert Assignment.received(FOUR | {"SubmissionID": "abc"}, message()).id == "abc"
    assert Assignment.received(dict(FOUR), message()).id == "m1"
    made = {Assignment.received(dict(FOUR), message("", "")).id for _ in range(2)}
    assert len(made) == 2
    assert all(made)
    odd = Assignment.received(FOUR | {"SubmissionID": "../../<b>" + "x" * 300}, message()).id
    assert odd == identity("../../<b>" + "x" * 300)
    assert len(odd) == 32


def test_a_submission_sent_back_goes_to_its_demonstrator_with_remarks() -> None:
    assignment = Assignment.received(FOUR | {"status": "corrected", "Remarks": ["first"]}, message())
    back = decide(assignment, ROLES["assistant"], "send-back", Decision("bob", remark="too strict"))
    assert (back.status, back.remarks) == ("submitted", ["first", "too strict"])
    assert key_of(back, Course()) == "demonstrator_cc"
    assert key_of(Assignment(back | {"Module": "unknown"}), Course()) == "correction"


@pytest.mark.parametrize(
    ("role", "action", "decision", "text"),
    [
        (
            "coordinator",
            "send-back",
            Decision("x", remark="no"),
            "'send-back' is not a decision of the coordinator: use confirm",
        ),
        ("assistant", "send-back", Decision("x", remark="  "), "write why"),
        ("assistant", "validate", Decision("x", mark=3.0), "gives no mark"),
        ("assistant", "validate", Decision("x", feedback="well done"), "no mark or feedback"),
        ("coordinator", "confirm", Decision("x", out_of=1.0), "gives no mark"),
        ("demonstrator", "correct", Decision("x", 1.0, feedback="x" * 100_001), "at most 100000 characters"),
        ("assistant", "send-back", Decision("x", remark="x" * 100_001), "at most 100000 characters"),
        ("demonstrator", "correct", Decision("x", out_of=10.0), "without a mark"),
        ("demonstrator", "correct", Decision("x", mark=11.0, out_of=10.0), "11 out of 10"),
        ("demonstrator", "correct", Decision("x", mark=-1.0), "is not possible"),
        ("demonstrator", "correct", Decision("x", mark=float("nan")), "is not possible"),
        ("demonstrator", "correct", Decision("x", remark="no"), "only for a submission that is sent back"),
    ],
)
def test_a_role_decides_only_what_is_its_own(role: str, action: str, decision: Decision, text: str) -> None:
    assignment = Assignment.received(dict(FOUR), message())
    named = next(item for item in ROLES.values() if item.name == role)
    with pytest.raises(UsageError, match=text):
        decide(assignment, named, action, decision)


def test_a_scheme_s_bonus_may_take_a_mark_beyond_the_maximum() -> None:
    assignment = Assignment.received(dict(FOUR), message())
    moved = decide(assignment, ROLES["demonstrator"], "correct", Decision("automatic", 2.5, 2.0), by_scheme=True)
    assert (moved["Mark"], moved["OutOf"]) == (2.5, 2.0)
    with pytest.raises(UsageError, match="is not possible"):
        decide(assignment, ROLES["demonstrator"], "correct", Decision("x", float("inf"), 2.0), by_scheme=True)


def test_a_mark_that_a_student_wrote_into_the_message_does_not_count() -> None:
    assignment = Assignment.received(FOUR | {"Mark": 10, "OutOf": 10, "Feedback": "splendid", "Extra": 1}, message())
    demonstrator = ROLES["demonstrator"]
    corrected = decide(assignment, demonstrator, "correct", Decision("automatic"))
    assert not {"Mark", "OutOf", "Feedback"} & set(corrected)
    assert corrected["Extra"] == 1
    marked = decide(assignment, demonstrator, "correct", Decision("ann", 3.0))
    assert (marked["Mark"], "OutOf" in marked, "Feedback" in marked) == (3.0, False, False)
    validated = decide(marked, ROLES["assistant"], "validate", Decision("bob"))
    assert validated["Mark"] == 3.0


def test_reports_to_the_records_contain_no_solution() -> None:
    made = submission(1, "m", b"secret", "f", "id1")
    assert "Solution" not in Progress.of(made)
    assert Progress.of(made)["History"] == made.history
