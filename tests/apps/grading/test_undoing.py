"""A person's decision can be taken back until its message leaves the outbox, and only by that person."""

import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI

from rabbitry._ids import NoSuchID, pick
from rabbitry.apps import AppRole, Site
from rabbitry.apps.grading.message import Decision, submission, user_name
from rabbitry.apps.grading.modules import UNDO, Course, load_course
from rabbitry.apps.grading.records import Database, course, inbox, outbox, schema, undoing
from rabbitry.apps.grading.roles import ROLES, RoleName, decide
from rabbitry.apps.passwords import hash_password
from rabbitry.apps.users_file import Account, changed_users
from rabbitry.exceptions import UsageError
from rabbitry.web.server import mounts
from tests.support import commands
from tests.support.postgresql import PostgreSQL
from tests.web.login.dashboards import PASSWORD, client, dashboard, sign_in

_HELD: Final = Course(undo=3600)
_ANN: Final = Decision("ann", 5.0, 10.0)


_BEFORE: Final[tuple[RoleName, ...]] = ("demonstrator", "assistant")


def _put(database: Database, identity: str = "s1", role: RoleName = "demonstrator") -> None:
    one = submission(7, "data_mining", b"x = 1\n", "x.py", identity)
    for taken in _BEFORE:
        if ROLES[role].takes != one.status:
            one = decide(one, ROLES[taken], ROLES[taken].actions[0], Decision("somebody"))
    put = partial(inbox.put, role=ROLES[role], assignment=one, exchange="assignment_exchange", message=identity)
    assert database.write_now(put)


def _decide(database: Database, action: str, decision: Decision, rules: Course = _HELD, identity: str = "s1") -> int:
    found = database.read_now(partial(inbox.item, identity=identity))
    database.write_now(partial(inbox.settle, found=found, action=action, decision=decision, course=rules))
    return found.id


def _claimed(database: Database, role: RoleName, rules: Course = _HELD) -> list[outbox.Letter]:
    return database.write_now(partial(inbox.claimed, roles=[role], course=rules))


def test_a_decision_is_held_and_can_be_taken_back_by_who_made_it(database: Database) -> None:
    _put(database)
    item = _decide(database, "correct", _ANN)
    assert _claimed(database, "demonstrator") == []
    assert database.read_now(partial(outbox.is_empty, roles=["demonstrator"]))
    unsent = partial(undoing.unsent, role="demonstrator")
    (one,) = database.read_now(partial(unsent, who="ann"))
    assert (one.item, one.id, one.action, one.who) == (item, "s1", "correct", "ann")
    assert 0 < one.seconds <= 3600
    assert database.read_now(partial(unsent, who="bob")) == []
    take = partial(undoing.take_back, identity="s1", role="demonstrator")
    with pytest.raises(UsageError, match="ann decided on s1 as the demonstrator, and alone can take that back"):
        database.write_now(partial(take, who="bob"))
    with pytest.raises(NoSuchID):
        database.write_now(partial(take, who="ann", sees=lambda _, module: module == "cloud_computing"))
    assert database.write_now(partial(take, who="ann")).id == item
    assert database.read_now(outbox.count) == 0
    assert database.read_now(inbox.counts) == {"demonstrator": 1}
    with pytest.raises(NoSuchID):
        database.write_now(partial(take, who="ann"))
    assert _decide(database, "correct", Decision("bob", 9.0, 10.0)) == item  # it is as if nothing had been decided


def test_what_was_claimed_once_is_not_taken_back_even_if_it_was_not_sent(database: Database) -> None:
    _put(database)
    _decide(database, "correct", _ANN, Course())
    letters = _claimed(database, "demonstrator", Course())
    assert [letter.key for letter in letters] == ["validation", "progress"]
    take = partial(undoing.take_back, identity="s1", who="ann")
    for after in (lambda _: None, partial(outbox.release, letters=[letter.id for letter in letters])):
        database.write_now(after)
        assert database.read_now(partial(undoing.unsent, role="demonstrator", who=None)) == []
        with pytest.raises(UsageError, match="it has been sent, or is final"):
            database.write_now(take)
    assert database.read_now(inbox.counts) == {}


def test_a_decision_that_somebody_made_in_between_is_not_taken_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(database)
    _decide(database, "correct", _ANN)

    def work(connection: Any) -> None:
        def late(*given: Any, **options: Any) -> str:
            # PostgreSQL lets other transactions commit between two statements of this one.
            monkeypatch.setattr(undoing, "pick", pick)
            undoing.take_back(connection, "s1", "ann")
            found = inbox.item(connection, "s1")
            inbox.settle(connection, found, "correct", Decision("bob", 9.0, 10.0), _HELD)
            return pick(*given, **options)

        monkeypatch.setattr(undoing, "pick", late)
        undoing.take_back(connection, "s1", "ann")

    with pytest.raises(UsageError, match="the decision on s1 was taken back already, perhaps in another window"):
        database.write_now(work)


@pytest.mark.parametrize(("ahead", "is_sent"), [(3600.0, False), (86400.0, True)])
def test_a_clock_that_was_put_back_holds_no_decision_for_days(
    database: Database, monkeypatch: pytest.MonkeyPatch, ahead: float, *, is_sent: bool
) -> None:
    _put(database)
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "clock", lambda connection: schema.clock(connection) + ahead)
        _decide(database, "correct", _ANN)
    assert bool(_claimed(database, "demonstrator")) is is_sent


@pytest.mark.parametrize("wrong", [-86_400.0, 86_400.0])
def test_a_page_on_a_machine_with_a_wrong_clock_holds_a_decision_as_long(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    with Database(postgresql_server.create_database()) as database:
        _put(database)
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda right=time.time: right() + wrong)
            _decide(database, "correct", _ANN)
            (one,) = database.read_now(partial(undoing.unsent, role="demonstrator", who="ann"))
        assert 3_000 < one.seconds <= 3_600
        assert _claimed(database, "demonstrator") == []
        assert database.read_now(partial(outbox.is_empty, roles=["demonstrator"]))


def test_a_confirmation_is_recorded_when_it_leaves_the_outbox(database: Database) -> None:
    _put(database, role="coordinator")
    status = partial(course.submission, identity="s1")
    _decide(database, "confirm", Decision("cleo"))
    assert database.read_now(status) is None
    database.write_now(partial(undoing.take_back, identity="s1", who="cleo"))
    _decide(database, "confirm", Decision("cora"), Course())
    (letter,) = _claimed(database, "coordinator", Course())
    found = database.read_now(status)
    assert found is not None
    assert (found[0].status, found[1][-1].who) == ("confirmed", "cora")
    # Whoever claims it again, after a publisher died, publishes the same result.
    database.write_now(partial(outbox.release, letters=[letter.id]))
    assert [again.message for again in _claimed(database, "coordinator", Course())] == [letter.message]


def test_a_confirmation_that_changes_nothing_is_not_sent(database: Database) -> None:
    _put(database, role="coordinator")
    other = database.read_now(partial(inbox.item, identity="s1")).assignment
    confirmed = decide(other, ROLES["coordinator"], "confirm", Decision("another coordinator"))
    assert database.write_now(partial(course.confirm, assignment=confirmed, message="another"))
    _decide(database, "confirm", Decision("cleo"), Course())
    assert _claimed(database, "coordinator", Course()) == []
    assert database.read_now(outbox.count) == 0


@pytest.mark.parametrize("value", ["true", '"5"', "-1", "1e9"])
def test_the_pause_is_a_number_of_seconds(tmp_path: Path, value: str) -> None:
    file = tmp_path / "grading.toml"
    file.write_text(f"undo = {value}\n")
    with pytest.raises(UsageError, match=r"undo is .*: write 0 to 3600 seconds"):
        load_course(file)
    file.write_text("undo = 2.5\n")
    assert load_course(file).undo == 2.5
    file.write_text("")
    assert load_course(file).undo == UNDO


async def test_on_the_page_each_takes_back_their_own_and_learns_of_no_other_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    url = database_url
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    (tmp_path / "grading.toml").write_text("undo = 3600\n")
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))
    with Database(url) as database:
        _put(database)
        async with client(_app(tmp_path)) as ann, client(_app(tmp_path)) as other, client(_app(tmp_path)) as bob:
            for http, name in ((ann, "ann"), (bob, "bob"), (other, "other")):
                assert (await sign_in(http, name)).status_code == 200
            place = "/grading/api/inbox/demonstrator/s1"
            done = await ann.post(place, json={"action": "correct", "mark": 5, "out_of": 10})
            assert done.json() == {"id": "s1", "status": "corrected"}
            # Somebody of the same module learns who decided; of another one, not even that it is there.
            told = (await bob.get(place)).json()["error"]
            assert "'s1' is decided already: ann decided" in told
            told = (await other.get(place)).json()["error"]
            assert told == (await other.get("/grading/api/inbox/demonstrator/zz")).json()["error"].replace("zz", "s1")

            unsent, take = "/grading/api/unsent/demonstrator", "/grading/api/unsent/demonstrator/s1"
            assert (await bob.get(unsent)).json() == {"decisions": []}
            refused = await bob.post(take, json={})
            assert (refused.status_code, "ann decided" in refused.json()["error"]) == (400, True)
            refused = await other.post(take, json={})
            assert (refused.status_code, "ann" in refused.json()["error"]) == (404, False)
            (one,) = (await ann.get(unsent)).json()["decisions"]
            assert (one["id"], one["student"], 0 < one["seconds"] <= 3600) == ("s1", "7", True)
            assert (await ann.post(take, json={})).json() == {"id": "s1", "item": one["item"]}
            assert (await ann.get(place)).json()["item"] == one["item"]


def _app(folder: Path) -> FastAPI:
    file = folder / "users.json"
    hashed = hash_password(PASSWORD, log_cost=1)
    with changed_users(file) as users:
        for name, module in (("ann", "data_mining"), ("bob", "data_mining"), ("other", "cloud_computing")):
            users[name] = Account("member", hashed, {"grading": AppRole("demonstrator", (module,))})
    return dashboard(folder, mounts(Site(broker="amqp://127.0.0.1:1/")), users=file)


def test_the_command_takes_back_the_users_own(database_url: str) -> None:
    url = database_url
    with Database(url) as database:
        _put(database)
        _decide(database, "correct", Decision(user_name(), 5.0, 10.0))
        done = commands.run("grading", "inbox", "undo", "s1", "--database", url)
        assert (done.returncode, done.stdout) == (0, "s1  waits for the demonstrator again\n"), done.stderr
        _decide(database, "correct", _ANN)
    refused = commands.run("grading", "inbox", "undo", "s1", "--database", url, "--json")
    assert (refused.returncode, "ann decided on s1" in refused.stderr) == (2, True)
