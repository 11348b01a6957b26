"""Signatures of roles: what they cover, who may sign what, and forged and replayed messages on both brokers."""

import asyncio
import errno
import json
import os
import stat
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.message import Assignment, Decision, Progress, submission
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, inbox, outbox, regrading
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.apps.grading.signatures import Key, Policy, Signatures, Signer, new_key
from rabbitry.apps.grading.signing import signer_for
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from rabbitry.flow.exceptions import Reject
from tests.apps.grading import _running
from tests.apps.grading._running import ALL, CC, PEOPLE, Plain, arrived, history, recorded, role_set
from tests.apps.grading.test_pipeline import WAY, dead_letters, read_results
from tests.support import commands
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)
_PEM, _PUBLIC = new_key()
_OTHER_PEM, _OTHER = new_key()
_EVERY: Final = ("demonstrator", "assistant", "coordinator")
_OURS: Final = Signer(_PEM)


def _signatures(unsigned: Policy = "flag", *keys: Key) -> Signatures:
    every = keys or (Key("office", _PUBLIC, _EVERY),)
    return Signatures({key.public: key for key in every}, unsigned)


def _wiring(unsigned: Policy) -> Wiring:
    return Wiring(replace(Course(), signatures=_signatures(unsigned)))


def _corrected(signer: Signer = _OURS, mark: float = 8.0) -> Assignment:
    made = submission(7, CC.name, b"x = 1\n", "x.py", "")
    made["SubmissionID"] = new_id(made)
    return signer.sign(decide(made, ROLES["demonstrator"], "correct", Decision("ann", mark, 10.0, "Gut, ü")))


def test_a_signature_holds_over_what_programs_do_to_json() -> None:
    made = _corrected()
    assert _signatures().check(made).signer == "office"
    sent = json.loads(json.dumps(made, ensure_ascii=True, sort_keys=True))
    sent["Mark"], sent["History"][1]["mark"] = 8, 8  # as JavaScript writes 8.0
    sent["Extra"] = {"of": "another program"}
    assert _signatures().check(Assignment(sent)).signer == "office"
    # The report of the hop has no file, and is signed as well.
    report = Progress.of(made)
    assert "Solution" not in report
    assert _signatures("refuse").check(report).signer == "office"


def _last(change: dict[str, Any]) -> Callable[[Assignment], None]:
    return lambda made: made.history[-1].update(change)


def _field(change: dict[str, Any]) -> Callable[[Assignment], None]:
    return lambda made: made.update(change)


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        (_field({"Mark": 10.0}), "a field differs"),
        (_field({"OutOf": 8.0}), "a field differs"),
        (_field({"Feedback": "perfect"}), "a field differs"),
        (_field({"Remarks": ["again"]}), "a field differs"),
        (_field({"StudentID": 8}), "a field differs"),
        (_field({"Module": "data_mining"}), "a field differs"),
        (_field({"Solution": "x = 2\n"}), "the file is not the one"),
        (_field({"Solution": "?", "SolutionEncoding": "base64"}), "the file is not the one"),  # it can't be decoded
        (_field({"SubmissionID": "other"}), "does not match"),
        (_last({"mark": 10.0}), "does not match"),
        (_last({"when": "2026-11-01T00:00:00+00:00"}), "does not match"),
        (_last({"who": "bob"}), "does not match"),
        (_last({"covers": "0" * 64}), "does not match"),
        (_last({"signature": "AAAA"}), "does not match"),
        (lambda made: made.history[0].update(sha256="0" * 64), "does not match"),
        (lambda made: made.history.insert(1, dict(made.history[0])), "does not match"),
        (_last({"role": "coordinator"}), "may not sign for 'coordinator' giving 'corrected'"),
    ],
)
def test_whatever_is_changed_is_refused_whatever_the_policy(tamper: Callable[[Assignment], None], why: str) -> None:
    made = Assignment(json.loads(json.dumps(_corrected())))
    tamper(made)
    with pytest.raises(Reject, match=why):
        _signatures("flag").check(made)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (Key("lab", _PUBLIC, ("assistant",)), "the key 'lab' may not sign for 'demonstrator'"),
        (Key("lab", _PUBLIC, ("demonstrator",), ("data_mining",)), "may not sign"),
    ],
)
def test_a_key_signs_only_for_its_roles_and_modules(key: Key, why: str) -> None:
    with pytest.raises(Reject, match=why):
        _signatures("flag", key).check(_corrected())
    own = Key("lab", _PUBLIC, ("demonstrator",), (CC.name,))
    assert _signatures("refuse", own).check(_corrected()).signer == "lab"


def test_a_file_that_can_not_be_decoded_is_signed_without_a_hash() -> None:
    broken = _corrected().without("History") | {"Solution": "?", "SolutionEncoding": "base64", "status": "submitted"}
    made = _OURS.sign(decide(Assignment(broken), ROLES["demonstrator"], "correct", Decision("ann")))
    assert _signatures("refuse").check(made).signer == "office"
    with pytest.raises(Reject, match="the file is not the one"):
        _signatures("flag").check(Assignment(made | {"Solution": "eA=="}))


def test_a_students_hop_is_no_way_around_the_roles() -> None:
    """Everybody can compute the digests in a hop; only its signature proves who wrote it."""
    fields = _corrected() | {"status": "validated", "Mark": 10.0}
    copied = {name: _corrected_hop(fields)[name] for name in ("covers", "sha256")}
    for key in ({}, {"key": _PUBLIC, "signature": "A" * 86 + "=="}):
        hop = {"role": "student", "status": "validated", "who": "eve"} | copied | key
        made = Assignment(fields | {"History": [hop]})
        with pytest.raises(Reject, match="not accepted as 'validated'"):
            _signatures("refuse").check(made)
        assert _signatures().findings(made)[0].doubt is not None


def _corrected_hop(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a hop with the right digests of an assignment's fields and file, signed by somebody else."""
    hop: dict[str, Any] = Signer(_OTHER_PEM).sign(Assignment(fields)).history[-1]
    return hop


def test_what_has_no_signature_is_flagged_or_refused() -> None:
    unsigned = decide(submission(7, CC.name, b"x", "x.py", "id"), ROLES["demonstrator"], "correct", Decision("ann"))
    foreign = _corrected(Signer(_OTHER_PEM))
    moved = Assignment(_corrected() | {"status": "validated"})  # by a program that writes no hops
    bare = Assignment({"StudentID": 7, "Solution": "x", "Module": CC.name, "status": "validated"})
    for made, why in (
        (unsigned, "it has no signature"),
        (foreign, "configuration lacks"),
        (moved, "the status is not signed: the last hop is 'corrected'"),
        (bare, "no hop tells"),
    ):
        found = _signatures("flag").check(made)
        assert (found.signer, found.is_forged, why in str(found.doubt)) == (None, False, True), found
        with pytest.raises(Reject, match="not accepted"):
            _signatures("refuse").check(made)
    new = submission(7, CC.name, b"x", "x.py", "id")
    assert _signatures("refuse").check(new).doubt is None  # students have no keys


def test_each_hop_can_be_checked_later() -> None:
    made = _OURS.sign(decide(_corrected(), ROLES["assistant"], "send-back", Decision("bob", remark="why?")))
    made = decide(made, ROLES["demonstrator"], "correct", Decision("ann", 9.0, 10.0))
    made = _OURS.sign(decide(made, ROLES["assistant"], "validate", Decision("bob")))
    found = _signatures().findings(made)
    assert [one.signer for one in found] == [None, "office", "office", None, "office"]
    assert [one.doubt for one in found] == [None, None, None, "it has no signature", None]


async def test_signed_roles_and_what_nobody_signed_is_in_the_record(broker_url: str, one_database: Database) -> None:
    """Our roles sign; a plain demonstrator among them does not, and its work goes on with a note."""
    wiring = _wiring("flag")
    ours = [spec for spec in ALL if spec.module is None or spec.module.name != "data_mining"]
    async with role_set(broker_url, one_database, ours, wiring=wiring, signer=_OURS):
        with Plain(broker_url) as plain:
            read_results(plain)
            identity = await _running.submit(broker_url, wiring=wiring)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
            assert _signatures("refuse").check(Assignment(result)).signer == "office"
            plain.send("validation", {"StudentID": 9, "Solution": "y", "Module": "data_mining", "status": "corrected"})
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
            assert {name: result[name] for name in ("StudentID", "Solution", "Module", "status")} == {
                "StudentID": 9, "Solution": "y", "Module": "data_mining", "status": "confirmed",
            }  # fmt: skip
        rows = await recorded(one_database, "confirmed", 2)
    own = await one_database.read(partial(course.submission, identity=identity))
    assert own is not None
    assert [(hop.status, hop.signer, hop.doubt) for hop in own[1]] == [
        ("submitted", None, None), ("corrected", "office", None), ("validated", "office", None),
        ("confirmed", "office", None),
    ]  # fmt: skip
    (plains,) = [row.id for row in rows if row.id != identity]
    other = await one_database.read(partial(course.submission, identity=plains))
    assert other is not None
    # The plain program wrote no hop; the assistant that took its message signed its own.
    assert [(hop.status, hop.signer) for hop in other[1]] == [("validated", "office"), ("confirmed", "office")]


async def test_forged_messages_are_dead_letters_under_refuse(broker_url: str, one_database: Database) -> None:
    wiring = _wiring("refuse")
    async with role_set(broker_url, one_database, wiring=wiring, signer=_OURS):
        with Plain(broker_url) as plain:
            read_results(plain)
            stolen = _corrected()
            forged = [
                (
                    "confirmation",
                    {"StudentID": 7, "Solution": "x", "Module": CC.name, "status": "validated", "Mark": 10},
                ),
                ("validation", stolen | {"Mark": 10.0}),
                ("validation", _corrected(Signer(_OTHER_PEM))),
                ("confirmation", stolen | {"status": "validated"}),
                # As if an assistant had sent it back, so that the mark in its History counts.
                (CC.key, decide(stolen, ROLES["assistant"], "send-back", Decision("bob", remark="again"))),
            ]
            for key, fields in forged:
                plain.send(key, fields)
            letters = await dead_letters(broker_url, len(forged))
            assert {letter.reason for letter in letters} == {"rejected"}
            report = Progress.of(decide(_corrected(), ROLES["assistant"], "validate", Decision("bob")))
            plain.exchange = "assignment_progress"
            plain.send("progress", report)
            await dead_letters(broker_url, len(forged) + 1)
            plain.exchange = "assignment_exchange"
            identity = await _running.submit(broker_url, wiring=wiring)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
            assert result["SubmissionID"] == identity  # and nothing of the forged ones came before it
    assert one_database.read_now(course.counts) == {"confirmed": 1}
    assert await history(one_database, identity) == WAY


async def test_replayed_messages_change_nothing(broker_url: str, one_database: Database) -> None:
    """A mark is lowered on its way; the signed message with the better one, seen before, is published again."""
    wiring = _wiring("refuse")
    with Plain(broker_url) as plain:
        people = [spec for spec in PEOPLE if spec.role != "coordinator"]
        # The coordinator, which keeps the records, decides by itself; the broker keeps what it is sent meanwhile.
        async with role_set(broker_url, one_database, [*people, RoleSpec("coordinator")], wiring=wiring, signer=_OURS):
            read_results(plain)
            plain.channel.queue_declare("seen", durable=True)
            for key in ("validation", "confirmation", CC.key):
                plain.channel.queue_bind("seen", plain.exchange, key)
            identity = await _running.submit(broker_url, wiring=wiring)
            (item,) = await arrived(one_database, "demonstrator")
            await _running.decide(one_database, item, "correct", Decision("ann", 10.0, 10.0))
            (item,) = await arrived(one_database, "assistant")
            await _running.decide(one_database, item, "send-back", Decision("bob", remark="too good"))
            seen = await asyncio.to_thread(plain.take, "seen", 3)
            await eventually(partial(_is_sent_back, one_database, identity), "the report of the second round")
            # An assistant that decides by itself, as another process may, validates the first round's mark.
            better = next(fields for fields in seen if fields["status"] == "corrected")
            moved = decide(Assignment(better), ROLES["assistant"], "validate", Decision("automatic"))
            plain.send("confirmation", _OURS.sign(moved))
            (item,) = await arrived(one_database, "demonstrator")
            await _running.decide(one_database, item, "correct", Decision("ann", 2.0, 10.0))
            (item,) = await arrived(one_database, "assistant")
            await _running.decide(one_database, item, "validate", Decision("bob"))
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
            assert (result["SubmissionID"], result["Mark"]) == (identity, 2.0)
            for fields in (*seen, *await asyncio.to_thread(plain.take, "seen", 3)):
                keys = {"submitted": CC.key, "corrected": "validation", "validated": "confirmation"}
                plain.send(keys[fields["status"]], fields)
            later = await _running.submit(broker_url, 8, wiring=wiring)
            (item,) = await arrived(one_database, "demonstrator")
            assert item.assignment.id == later  # nothing of the replayed came into an inbox
    found = await one_database.read(partial(course.submission, identity=identity))
    assert found is not None
    assert (found[0].mark, found[0].status) == (2.0, "confirmed")
    assert [hop.status for hop in found[1]] == [
        "submitted",
        "corrected",
        "submitted",
        "corrected",
        "validated",
        "confirmed",
    ]


async def test_marking_again_is_signed_and_keeps_what_was_known_of_the_first_round(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    wiring, files = _wiring("refuse"), Files(str(tmp_path / "files"))
    async with role_set(broker_url, one_database, wiring=wiring, signer=_OURS, files=files):
        identity = await _running.submit(broker_url, wiring=wiring)
        (first,) = await recorded(one_database, "confirmed", 1)
        assert first.kept is not None
        selection = regrading.Selection(CC.name)
        begin = partial(regrading.begin, selection=selection, course=wiring.course, who="cleo", remark="mended")
        run = await one_database.write(begin)
        data = files.fetch(first.kept)
        reopen = partial(regrading.reopen, run=run, identity=identity, data=data, course=wiring.course)
        assert await one_database.write(partial(reopen, exchange=wiring.exchange)) is not None
        await recorded(one_database, "confirmed", 1)
    found = await one_database.read(partial(course.submission, identity=identity))
    assert found is not None
    signed = [("submitted", None), ("corrected", "office"), ("validated", "office"), ("confirmed", "office")]
    assert [(hop.status, hop.signer) for hop in found[1]] == signed * 2
    assert {hop.doubt for hop in found[1]} == {None}


def _is_sent_back(database: Database, identity: str) -> bool:
    """Return whether the records know the signed hop that sent a submission back."""
    found = database.read_now(partial(course.submission, identity=identity))
    return found is not None and any((hop.status, hop.signer) == ("submitted", "office") for hop in found[1])


def test_keys_are_made_for_roles_and_the_private_one_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "lab.key"
    make = ("grading", "keys", "lab", "--role", "demonstrator", "--module", CC.name, "--out", str(file))
    done = commands.run(*make)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "PRIVATE" not in done.stdout + done.stderr
    key = tomllib.loads(done.stdout)["signatures"]["keys"]["lab"]
    assert (key["roles"], key["modules"]) == (["demonstrator"], [CC.name])
    assert Signer(file.read_bytes()).public == key["public"]
    again = commands.run(*make)
    assert (again.returncode, "can't be written" in again.stderr) == (2, True)  # a key is never overwritten
    assert os.listdir(tmp_path) == ["lab.key"]
    config = tmp_path / "grading.toml"
    config.write_text(f"[signatures]\nunsigned = 'refuse'\n{done.stdout}")
    assert load_course(config).signatures == Signatures(
        {key["public"]: Key("lab", key["public"], ("demonstrator",), (CC.name,))}, "refuse"
    )
    for arguments, why in (
        (("assistant",), "may not sign for the assistant"),
        (("demonstrator", "--module", "data_mining"), "may not sign for the module 'data_mining'"),
    ):
        refused = commands.run("grading", *arguments, "--config", str(config), "--key", str(file))
        assert (refused.returncode, why in refused.stderr) == (2, True), refused.stderr
    of_all = replace(load_course(config), signatures=_signatures("flag", Key("lab", key["public"], _EVERY, (CC.name,))))
    for role in ("demonstrator", "assistant"):
        with pytest.raises(UsageError, match=f"this {role} takes every module"):
            signer_for([RoleSpec(role)], file, of_all)
    os.chmod(file, 0o640)
    with pytest.raises(UsageError, match="run `chmod 600"):
        signer_for([], file, load_course(config))


async def test_a_decision_waits_for_a_key_of_its_module(broker_url: str, one_database: Database) -> None:
    wiring = Wiring(
        replace(
            Course(),
            signatures=_signatures(
                "refuse",
                Key("office", _PUBLIC, _EVERY),
                Key("mining", _OTHER, ("demonstrator",), ("data_mining",)),
            ),
        )
    )
    demonstrator = [RoleSpec("demonstrator", CC, person=True)]
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring, signer=_OURS):
        async with role_set(broker_url, one_database, demonstrator, wiring=wiring, signer=Signer(_OTHER_PEM)):
            identity = await _running.submit(broker_url, wiring=wiring)
            (item,) = await arrived(one_database, "demonstrator")
            settle = partial(inbox.settle, found=item, action="correct", decision=Decision("ann", 8.0, 10.0))
            await one_database.write(partial(settle, course=wiring.course))
        assert await one_database.read(outbox.count) == 2
        for modules, is_empty in ((("data_mining",), True), ((CC.name, "data_mining"), False), (None, False)):
            empty = partial(outbox.is_empty, roles=["demonstrator"], modules=modules)
            assert await one_database.read(empty) is is_empty
        claim = partial(outbox.claim, roles=["demonstrator"], modules=("data_mining",))
        assert await one_database.write(claim) == []
        async with role_set(broker_url, one_database, demonstrator, wiring=wiring, signer=_OURS):
            await recorded(one_database, "corrected", 1)
    found = await one_database.read(partial(course.submission, identity=identity))
    assert found is not None
    assert [(hop.status, hop.signer) for hop in found[1]] == [("submitted", None), ("corrected", "office")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[signatures]", "no keys"),
        ("[signatures]\nunsigned = 'drop'\n[signatures.keys.a]", "use flag or refuse"),
        ("[signatures.keys.a]\npublic = 'x'\nroles = ['assistant']", "not a public key"),
        ("[signatures.keys.a]\npublic = 'KEY'\nroles = ['student']", "roles is"),
        ("[signatures.keys.a]\npublic = 'KEY'\nroles = [['assistant']]", "roles is"),
        ("[signatures.keys.a]\npublic = 'KEY'\nroles = ['assistant']\nmodules = ['x']", "modules is"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "grading.toml").write_text(text.replace("KEY", _PUBLIC))
    with pytest.raises(UsageError, match=why):
        load_course(tmp_path / "grading.toml")


def test_a_key_that_can_t_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert _root.run(("grading", "keys", "lab", "--role", "demonstrator", "--out", str(tmp_path / "lab.key"))) == 2
    said = capsys.readouterr()
    assert ("No space left on device" in said.err, said.out) == (True, "")
    assert os.listdir(tmp_path) == []
