"""`rabbitry grading` as students, roles and people use it."""

import asyncio
import base64
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import rabbitry
from rabbitry.apps.grading import asking
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.records import Database, course, inbox, outbox
from rabbitry.apps.grading.roles import ROLES, RoleName
from rabbitry.cli import _root
from rabbitry.exceptions import NotFound
from tests.flow._running import counts
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.terminals import shown_by
from tests.support.waiting import eventually_blocking

_WHO = ("--student", "23200858", "--module", "cloud_computing")
_WAY = ["submitted", "corrected", "validated", "confirmed"]


ON_BOTH_BROKERS = pytest.mark.parametrize("more", ["embedded", "rabbitmq"], indirect=True)
"""Runs a test once on each broker, with the roles' records on PostgreSQL beside RabbitMQ."""


@pytest.fixture
def more(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of all commands of a test, in child processes and in this one."""
    broker = getattr(request, "param", "embedded")
    url: str = request.getfixturevalue(f"{broker}_url")
    more = {"RABBITRY_BROKER": url, "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path)}
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    if broker == "rabbitmq":  # for the roles alone: the commands in this process are those of students
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        more["RABBITRY_DATABASE"] = server.create_database()
    return more


def records_of(more: dict[str, str]) -> str:
    """Return the URL of the roles' database."""
    return more.get("RABBITRY_DATABASE", f"sqlite:///{more['XDG_DATA_HOME']}/rabbitry/grading.sqlite3")


class Done(NamedTuple):
    """The exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(more: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which saves starting Python and importing."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = _root.run(("grading", *arguments))
        return Done(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a solution."""
    path = tmp_path / "solution.py"
    path.write_text("print('hello')\n")
    return path


def _followed(identity: str, run: Run) -> list[str]:
    """Wait for the confirmation as a student does; return the statuses."""
    done = run("status", identity, "--watch", "--json")
    assert done.returncode == 0, done.stderr
    return [hop["status"] for hop in json.loads(done.stdout.splitlines()[-1])["history"]]


@ON_BOTH_BROKERS
def test_a_file_goes_the_whole_way_and_its_student_can_follow(
    more: dict[str, str], run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("submit", str(file), *_WHO)
    assert done.returncode == 0, done.stderr
    identity = done.stdout.strip()
    with commands.service("grading", "run", more=more) as roles:
        assert _followed(identity, run) == _WAY
        told = run("status", identity)
        assert "attempt 1" in told.stdout
        assert "confirmed  by coordinator" in told.stdout
        unknown = run("status", "nothing")
        assert (unknown.returncode, "no submission 'nothing' is recorded" in unknown.stderr) == (1, True)
        roles.process.terminate()
        assert roles.process.wait(90) == 0, roles.output
        assert "Traceback" not in roles.output
    monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.1)  # no role runs
    away = run("status", identity)
    assert (away.returncode, "no coordinator answers" in away.stderr) == (1, True)
    assert run("status", identity, "--database", records_of(more)).returncode == 0
    row = json.loads(run("results", "--json", "--database", records_of(more)).stdout)
    assert (row["id"], row["status"], row["latest"]) == (identity, "confirmed", True)


@pytest.mark.parametrize("from_records", [False, True])
def test_a_watch_reports_that_no_role_takes_the_submission(
    more: dict[str, str], run: Run, file: Path, from_records: bool
) -> None:
    identity = run("submit", str(file), *_WHO).stdout.strip()
    options = ["--database", records_of(more)] if from_records else []
    with commands.service("grading", "coordinator", more=more) as coordinator:
        coordinator.wait_for("coordinator, records")
        with commands.service("grading", "status", identity, "--watch", *options, more=more) as watch:
            watch.wait_for(
                r"warning: no demonstrator of module 'cloud_computing' runs, and the submission waits in queue "
                r"'correction_queue_cc'; start one: rabbitry grading demonstrator --module cloud_computing\n"
            )
            with commands.service("grading", "demonstrator", "--module", "cloud_computing", more=more):
                watch.wait_for(r"warning: no assistant runs, and the submission waits in queue 'validation_queue'")
                with commands.service("grading", "assistant", more=more):
                    assert watch.process.wait(90) == 0, watch.output
                    # A late coordinator causes a warning too, and is awaited.
                    assert len(re.findall(r"warning: no (?:demonstrator|assistant) ", watch.output)) == 2


def test_a_watch_shows_each_hop_once_in_whatever_order_they_are_recorded(more: dict[str, str]) -> None:
    hops = [submission(7, "cloud_computing", b"x", "x.py", "w1")]
    for status, role in zip(_WAY[1:], ROLES, strict=True):
        hops.append(hops[-1].moved(status, role, Decision("automatic", mark=3.0, out_of=4.0)))
    url = records_of(more)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    with Database(url) as database:
        for hop in (hops[0], hops[2]):
            database.write_now(partial(course.record, assignment=hop))
        with commands.service("grading", "status", hops[0].id, "--watch", "--database", url, more=more) as watch:
            watch.wait_for("validated")
            database.write_now(partial(course.record, assignment=hops[1]))
            watch.wait_for("corrected")
            database.write_now(partial(course.confirm, assignment=hops[3], message="1"))
            assert watch.process.wait(90) == 0, watch.output
            shown = re.findall(r"^ *\S+  (\w+) +by", watch.output, re.MULTILINE)
    assert shown == [_WAY[0], _WAY[2], _WAY[1], _WAY[3]]


def test_a_folder_is_submitted_at_once(more: dict[str, str], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").write_text("no")
    for number in range(1001, 1021):
        (folder / f"{number}_work.py").write_text(f"x = {number}\n")
    done = run("submit", str(folder), "--module", "data_mining", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["student"] for row in rows] == list(range(1001, 1021))
    assert len({row["id"] for row in rows}) == 20


def test_wrong_input_is_refused_before_any_submission(
    more: dict[str, str], run: Run, file: Path, tmp_path: Path
) -> None:
    empty, large, config = tmp_path / "empty", tmp_path / "large", tmp_path / "course.toml"
    empty.touch()
    large.write_bytes(b"x" * 101)
    config.write_text('largest_submission = 100\n[modules.cloud_computing]\nshort = "cc"\n')
    broken = tmp_path / "broken.toml"
    broken.write_text("[modules\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "1001_good.py").write_text("x")
    (mixed / "1002_empty.py").touch()
    (mixed / "nobody.py").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    cases = [
        ([str(file), "--student", "23200858", "--module", "basket_weaving"], "unknown module 'basket_weaving'"),
        ([str(file), "--student", "abc", "--module", "cloud_computing"], "'abc' is not a student number"),
        ([str(file), "--student", "-5", "--module", "cloud_computing"], "not a student number"),
        ([str(file), "--student", "²", "--module", "cloud_computing"], "not a student number"),
        ([str(file), "--student", "9" * 19, "--module", "cloud_computing"], "not a student number"),
        ([str(file), "--module", "cloud_computing"], "the name does not begin with a student number"),
        ([str(empty), *_WHO], "is empty"),
        ([str(large), *_WHO, "--config", str(config)], "too large: more than 100 bytes"),
        ([str(tmp_path / "missing"), *_WHO], "no such file"),
        ([str(tmp_path / "pipe"), *_WHO], "not a regular file"),
        ([str(folder), *_WHO], "the folder has no files"),
        ([str(mixed), *_WHO], "1002_empty.py is empty"),
        ([str(mixed), "--module", "cloud_computing"], "nobody.py: the name does not begin with a student number"),
        ([str(file), *_WHO, "--config", str(broken)], "broken.toml"),
        ([str(file), *_WHO, "--exchange", ""], "default exchange"),
    ]
    for arguments, why in cases:
        done = run("submit", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    queues = asyncio.run(counts(more["RABBITRY_BROKER"], ["correction_queue_cc", "correction_queue_dm"]))
    assert set(queues.values()) == {-1}


def test_a_marking_scheme_that_does_not_parse_is_named_with_its_line(
    more: dict[str, str], run: Run, tmp_path: Path
) -> None:
    config, scheme = tmp_path / "course.toml", tmp_path / "scheme.toml"
    config.write_text('[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n')
    scheme.write_text('[scheme]\nname = "x"\n\n[[part]]\npoints = "many"\n')
    done = commands.run("grading", "demonstrator", "--module", "cloud_computing", "--config", str(config), more=more)
    assert done.returncode == 2
    assert "demonstrator of module 'cloud_computing' can't run" in done.stderr
    assert "scheme.toml:5" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_marking_scheme_that_does_not_parse_stops_its_role_alone(
    more: dict[str, str], run: Run, file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "course.toml"
    config.write_text(
        '[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n[modules.data_mining]\nshort = "dm"\n'
    )
    (tmp_path / "scheme.toml").write_text("[scheme\n")
    done = run("submit", str(file), "--student", "1", "--module", "data_mining", "--config", str(config))
    assert done.returncode == 0, done.stderr
    with commands.service("grading", "run", "--config", str(config), more=more) as roles:
        assert _followed(done.stdout.strip(), run) == _WAY
        roles.process.terminate()
        assert roles.process.wait(90) == 0, roles.output
        assert "demonstrator of module 'cloud_computing' does not run" in roles.output


def test_one_shot_commands_fail_at_once_if_no_broker_is_there(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITRY_BROKER", f"amqp://127.0.0.1:{free_port()}/")
    for arguments in (("submit", str(file), *_WHO), ("status", "x"), ("results", "--follow")):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    more = {"RABBITRY_BROKER": os.environ["RABBITRY_BROKER"]}
    assert commands.run("grading", "assistant", "--connect-attempts", "1", more=more).returncode == 3


def test_roles_that_started_before_their_broker_find_it(
    more: dict[str, str], run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BrokerProcess() as broker:
        more["RABBITRY_BROKER"] = broker.url
        monkeypatch.setenv("RABBITRY_BROKER", broker.url)
        broker.kill()
        with (
            commands.service("grading", "demonstrator", "--module", "cloud_computing", more=more) as one,
            commands.service("grading", "assistant", more=more) as two,
            commands.service("grading", "coordinator", more=more) as three,
        ):
            for role in (one, two, three):
                role.wait_for("trying again in")
            broker.start()
            identity = run("submit", str(file), *_WHO).stdout.strip()
            three.wait_for("grading: coordinator, records")
            assert _followed(identity, run) == _WAY


def test_people_work_on_the_command_line(
    more: dict[str, str], run: Run, file: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = file.with_name("course.toml")
    config.write_text("undo = 0\n")  # no decision waits to be taken back
    for name, value in {"RABBITRY_DATABASE": database_url, "RABBITRY_GRADING": str(config)}.items():
        monkeypatch.setenv(name, value)
        more[name] = value
    people = ("--person", "demonstrator", "--person", "assistant", "--person", "coordinator")
    identity = run("submit", str(file), *_WHO).stdout.strip()

    def waits(role: str) -> bool:
        listed = run("inbox", "list", "--role", role, "--json")
        return any(json.loads(line)["id"] == identity for line in listed.stdout.splitlines())

    def decide(role: str, *arguments: str) -> str:
        eventually_blocking(lambda: waits(role), f"{identity} in {role}")
        done = run("inbox", "decide", identity, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with commands.service("grading", "run", *people, more=more):
        eventually_blocking(lambda: waits("demonstrator"), "it arrives")
        shown = run("inbox", "show", identity)
        assert "print('hello')" in shown.stdout
        wrong = run("inbox", "decide", identity, "--mark", "12", "--out-of", "10")
        assert (wrong.returncode, "is not possible" in wrong.stderr) == (2, True)
        for comment, why in (("x=y", "is not LINE=TEXT"), ("9=far", "lines here to 1")):
            wrong = run("inbox", "decide", identity, "--mark", "8", "--comment", comment)
            assert (wrong.returncode, why in wrong.stderr) == (2, True), wrong.stderr
        first = ("--mark", "8", "--out-of", "10", "--feedback", "good", "--comment", "1=why = hello?")
        assert "corrected" in decide("demonstrator", *first)
        eventually_blocking(lambda: waits("assistant"), f"{identity} in assistant")
        numbered = run("inbox", "show", identity, "--lines").stdout
        assert ("): why = hello?" in numbered, "1  print('hello')" in numbered) == (True, True), numbered
        assert "submitted" in decide("assistant", "--send-back", "why only 8?")
        assert "corrected" in decide("demonstrator", "--mark", "9.5", "--out-of", "10", "--feedback", "=1+1")
        assert "validated" in decide("assistant")
        assert "confirmed" in decide("coordinator")
        assert _followed(identity, run) == [*_WAY[:2], "submitted", *_WAY[1:]]
        assert "\n    line 1: why = hello?\n" in run("status", identity).stdout
    gone = run("inbox", "decide", identity)
    assert gone.returncode == 1
    assert re.search("is decided already.* as the coordinator", gone.stderr)
    (row,) = csv.DictReader(io.StringIO(run("export").stdout.removeprefix("\ufeff")))
    assert (row["student"], row["mark"], row["feedback"], row["attempt"]) == ("23200858", "9.5", "'=1+1", "1")
    exported = json.loads(run("export", "--format", "json").stdout)
    assert (exported["mark"], exported["feedback"]) == (9.5, "=1+1")
    assert [hop["status"] for hop in exported["history"]] == [*_WAY[:2], "submitted", *_WAY[1:]]


@ON_BOTH_BROKERS
def test_results_are_followed_as_they_come(more: dict[str, str], run: Run, file: Path) -> None:
    with (
        commands.service("grading", "run", more=more) as roles,
        commands.service("grading", "results", "--follow", "--json", more=more) as reader,
    ):
        roles.wait_for("coordinator, records")

        def comes() -> str:
            run("submit", str(file), *_WHO)
            return reader.output

        line = eventually_blocking(comes, "a result").splitlines()[0]
        assert json.loads(line)["status"] == "confirmed"
        reader.process.terminate()
        assert reader.process.wait(90) == 0


@ON_BOTH_BROKERS
def test_by_broadcast_with_the_options_of_the_command_line(more: dict[str, str], run: Run, file: Path) -> None:
    everybody = ("--exchange", "everybody", "--exchange-type", "fanout", "--plain")
    with commands.service("grading", "run", *everybody, more=more) as roles:
        roles.wait_for("coordinator, records")
        done = run("submit", str(file), *_WHO, *everybody)
        assert _followed(done.stdout.strip(), run) == _WAY
        roles.process.terminate()
        assert roles.process.wait(90) == 0, roles.output
        assert "messages of others left alone" in roles.output
    with rabbitry.connect_blocking(more["RABBITRY_BROKER"]) as connection, connection.channel() as channel:
        channel.declare_exchange("everybody", "fanout")  # not durable; otherwise this raises 406


def test_a_password_in_a_database_s_url_is_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://ann:secret@127.0.0.1:{free_port()}/course"
    done = run("export", "--database", url)
    assert done.returncode == 1
    assert "warning" in done.stderr
    assert "secret" not in done.stderr
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    assert "warning" not in run("export").stderr


def test_a_folder_shows_a_progress_bar_on_a_terminal_and_ids_in_a_pipe(more: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for number in range(1001, 1004):
        (folder / f"{number}.py").write_text("x")
    shown, printed = shown_by(
        [sys.executable, "-m", "rabbitry", "grading", "submit", str(folder), "--module", "data_mining"],
        environment=commands.environment(more | {"TERM": "xterm"}),
    )
    assert b"submitting" in shown
    assert b"%" in shown
    assert [line.split()[1] for line in printed.decode().splitlines()] == ["1001.py", "1002.py", "1003.py"]


def test_files_whose_names_are_not_text_can_be_submitted(more: dict[str, str], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"1001_bad\xff.py", b"1002_esc\x1b[31m.py"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text("x = 1\n")
    done = run("submit", str(folder), "--module", "data_mining", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["student"] for line in done.stdout.splitlines()] == [1001, 1002]
    assert "\x1b" not in done.stdout
    odd = os.fsdecode(b"3f2a\xff")
    database = f"sqlite:///{tmp_path}/records.sqlite3"
    for command in (("status", odd), ("inbox", "show", odd), ("inbox", "decide", "3f2a", "--feedback", odd)):
        refused = run(*command, "--database", database)
        assert (refused.returncode, "is not UTF-8: " in refused.stderr) == (2, True), refused.stderr


def test_an_unreadable_path_is_refused(run: Run, tmp_path: Path) -> None:
    for path, why in ((str(tmp_path / ("x" * 300)), "File name too long"), ("", "name is empty")):
        done = run("submit", path, *_WHO)
        assert (done.returncode, why in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_students_text_controls_neither_terminal_nor_spreadsheet(run: Run, database_url: str) -> None:
    solution = "def f():\n\tif 1:\n        return 2  # \x1b]0;x\x07 \x9b31m\n"
    texts = ["=1+1", " =1+1", "\uff1d1+1", "\n-1", "a;=1+1", "one\ntwo\x1b[31m\x9b0m"]
    with Database(database_url) as database:
        for number, text in enumerate(texts):
            fields = {"StudentID": 100 + number, "Feedback": text, "status": "corrected", "SubmissionID": str(number)}
            fields["History"] = [{"role": "student"}, {"role": "demonstrator"}]
            database.write_now(partial(course.record, assignment=Assignment(fields)))
        waits = Assignment({"StudentID": 7, "Solution": solution, "status": "submitted", "SubmissionID": "waits"})
        waits["Feedback"] = "\x9b31m"
        put = partial(inbox.put, role=ROLES["demonstrator"], assignment=waits, exchange="x", message="m")
        assert database.write_now(put)
    shown = run("inbox", "show", "waits", "--database", database_url).stdout
    assert "def f():\n    if 1:\n        return 2  #" in shown
    exported = run("export", "--database", database_url).stdout
    cells = {row["student"]: row["feedback"] for row in csv.DictReader(io.StringIO(exported.removeprefix("\ufeff")))}
    assert [cells[str(100 + number)] for number in range(4)] == ["'=1+1", "' =1+1", "'\uff1d1+1", "'\n-1"]
    assert '"a;=1+1"' in exported
    assert cells["105"] == "one\ntwo [31m 0m"
    as_json = run("inbox", "show", "waits", "--json", "--database", database_url).stdout
    assert json.loads(as_json)["solution"] == solution
    assert not {"\x1b", "\x9b", "\x07"} & set(shown + exported + as_json)


def test_results_are_not_followed_on_the_default_exchange(run: Run) -> None:
    done = run("results", "--follow", "--exchange", "")
    assert (done.returncode, "default exchange" in done.stderr) == (2, True)


def test_reading_commands_create_nothing(more: dict[str, str], run: Run, tmp_path: Path) -> None:
    data = Path(more["XDG_DATA_HOME"])
    empty = tmp_path / "empty.sqlite3"
    empty.touch()
    commands_ = (["results"], ["results", "--json"], ["inbox", "list"], ["inbox", "list", "--role", "assistant"])
    for command in (*commands_, ["export"], ["export", "--format", "json"]):
        done = run(*command)
        assert (done.returncode, "no records yet" in done.stderr) == (0, True), command
        assert not data.exists()
        done = run(*command, "--database", f"sqlite:///{empty}")
        assert (done.returncode, "no records yet" in done.stderr) == (0, True), command
    for command in (["inbox", "show", "x"], ["inbox", "save", "x"], ["inbox", "decide", "x", "--mark", "1"]):
        assert run(*command).returncode == 1
    assert run("status", "abcd").returncode == 1
    assert run("status", "abcd", "--database", f"sqlite:///{tmp_path}/none/none.sqlite3").returncode == 1
    assert empty.stat().st_size == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.sqlite3"]
    with rabbitry.connect_blocking(more["RABBITRY_BROKER"]) as connection:
        for queue in ("grading.status", "progress_queue", "confirmation_queue"):
            with pytest.raises(NotFound), connection.channel() as channel:
                channel.declare_queue(queue, passive=True)


def _put(database: Database, assignment: Assignment, role: RoleName = "demonstrator") -> None:
    """Put an assignment into a role's inbox."""
    put = partial(inbox.put, role=ROLES[role], assignment=assignment, exchange="x", message="m")
    assert database.write_now(put)


@pytest.fixture
def three(database_url: str) -> str:
    """The URL of a database with three recorded assignments in the demonstrator's inbox."""
    with Database(database_url) as database:
        for number, identity in enumerate(("3f2a11", "3f2a22", "9c0000")):
            fields = {"StudentID": f"s{number}", "Solution": "x", "Module": "data_mining", "status": "submitted"}
            one = Assignment(fields | {"SubmissionID": identity, "SolutionName": f"{identity}.py"})
            _put(database, one)
            database.write_now(partial(course.record, assignment=one))
    return database_url


COMMANDS = [("inbox", "show"), ("inbox", "save"), ("inbox", "decide", "--mark", "1"), ("status",)]


@pytest.mark.parametrize("command", COMMANDS, ids=["show", "save", "decide", "status"])
def test_a_unique_prefix_of_an_id_is_enough(
    command: tuple[str, ...], run: Run, three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for identity, why in (("3f2a", "several ids: 3f2a11, 3f2a22"), ("ffff", "ffff"), ("", "''")):
        done = run(*command, identity, "--database", three)
        assert (done.returncode, why in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr
    assert run(*command, "3f2a2", "--database", three).returncode == 0
    assert run(*command, "9c", "--database", three).returncode == 0


def test_lists_are_filtered_and_cut(run: Run, three: str) -> None:
    def ids(*arguments: str) -> list[str]:
        return [
            json.loads(line)["id"]
            for line in run("inbox", "list", *arguments, "--json", "--database", three).stdout.splitlines()
        ]

    assert ids() == ["3f2a11", "3f2a22", "9c0000"]
    assert ids("--find", "s1") == ["3f2a22"]
    assert ids("--find", "3f2a", "--limit", "1", "--offset", "1") == ["3f2a22"]
    assert ids("--module", "cloud_computing") == []
    nothing = run("inbox", "list", "--module", "cloud_computing", "--database", three)
    assert (nothing.returncode, nothing.stdout, "no submission waits" in nothing.stderr) == (0, "", True)
    assert "no results" in run("results", "--database", three).stderr
    assert run("results", "--follow", "--limit", "1").returncode == 2


def test_a_saved_file_is_as_submitted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = bytes(range(256)) * 3
    with Database(database_url) as database:
        one = submission("007", "data_mining", data, "../.hidden/../r\u202eport.zip", "3f2a11")
        _put(database, one)
        _put(database, Assignment(one | {"History": []}), "assistant")
    done = run("inbox", "save", "3f2a", "--database", database_url)
    assert (done.returncode, done.stdout) == (0, "r_port.zip\n")
    assert (tmp_path / "r_port.zip").read_bytes() == data
    again = run("inbox", "save", "3f2a", "--database", database_url)
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    assert run("inbox", "save", "3f2a", "other.zip", "--database", database_url).returncode == 0
    assert (tmp_path / "other.zip").read_bytes() == data
    assert run("inbox", "save", "3f2a", "no/folder.zip", "--database", database_url).returncode == 1
    shown = run("inbox", "show", "3f2a", "--role", "demonstrator", "--database", database_url).stdout
    assert "768 bytes of binary data" in shown
    as_json = json.loads(
        run("inbox", "show", "3f2a", "--role", "demonstrator", "--json", "--database", database_url).stdout
    )
    assert base64.b64decode(as_json["solution"]) == data
    assert (as_json["encoding"], as_json["student"]) == ("base64", "007")


def test_a_mark_is_never_dropped_silently(
    run: Run, three: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "course.toml"
    config.write_text("undo = 0\n")  # what is decided may be claimed at once

    def decide(*arguments: str) -> Done:
        return run("inbox", "decide", *arguments, "--database", three, "--config", str(config))

    refused = decide("9c")
    assert (refused.returncode, "--no-mark" in refused.stderr) == (2, True)
    assert decide("9c", "--no-mark", "--mark", "1").returncode == 2
    assert "no mark" in decide("9c", "--no-mark").stdout
    back = [{"role": "assistant", "status": "submitted", "remark": "again"}]
    fields = {"StudentID": 7, "Solution": "x", "status": "submitted", "Mark": 8, "OutOf": 10, "Feedback": "good"}
    with Database(three) as database:
        for number in range(3):
            one = Assignment(fields | {"SubmissionID": f"back{number}", "History": back, "Remarks": ["again"]})
            _put(database, one)
    assert decide("back0").stdout == "back0  corrected  8 of 10\n"
    assert decide("back1", "--feedback", "better").stdout == "back1  corrected  8 of 10\n"
    assert decide("back2", "--mark", "9.25", "--out-of", "12").stdout == "back2  corrected  9.25 of 12\n"
    with Database(three) as database:
        sent = [
            json.loads(letter.body)
            for letter in database.write_now(partial(outbox.claim, roles=["demonstrator"]))
            if letter.type == "Assignment"
        ]
    assert [one.get("Feedback") for one in sent[-3:]] == ["good", "better", "good"]


def test_a_spreadsheet_shows_what_is_in_the_csv(run: Run, database_url: str) -> None:
    altered = ["007", "123456789012345678", "1e5", "mar1", "3-4", "TRUE"]
    students = {name: f"'{name}" for name in altered} | {name: name for name in ("s1234567", "23200858")}
    moved = [{"role": "student"}, {"role": "demonstrator"}]
    with Database(database_url) as database:
        for number, student in enumerate(students):
            fields = {"StudentID": student, "status": "corrected", "SubmissionID": f"id{number}", "History": moved}
            one = Assignment(fields | {"Mark": 1 / 3, "OutOf": 0.1 + 0.2, "Feedback": "✔ é"})
            database.write_now(partial(course.record, assignment=one))
    exported = run("export", "--database", database_url).stdout
    assert exported.startswith("\ufeff")
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(exported.removeprefix("\ufeff")))}
    assert set(rows) == set(students.values())
    assert {(row["mark"], row["out_of"], row["feedback"]) for row in rows.values()} == {("0.33", "0.3", "✔ é")}


def test_student_numbers_follow_the_configuration(more: dict[str, str], run: Run, file: Path, tmp_path: Path) -> None:
    config = tmp_path / "numbers.toml"
    config.write_text("student_number = 's[0-9]{7}|0*[0-9]{3,8}'\n")
    rest = ("--module", "data_mining", "--config", str(config), "--json")
    folder = tmp_path / "all"
    folder.mkdir()
    for name in ("s1234567_report.py", "0071.py"):
        (folder / name).write_text("x")
    rows = [json.loads(line) for line in run("submit", str(folder), *rest).stdout.splitlines()]
    assert [row["student"] for row in rows] == ["0071", "s1234567"]
    assert json.loads(run("submit", str(file), "--student", "23200858", *rest).stdout)["student"] == 23200858
    for wrong in ("x1234567", "s123", "s1234567x", "12", "s1234567\n"):
        done = run("submit", str(file), "--student", wrong, *rest)
        assert (done.returncode, "not a student number" in done.stderr) == (2, True), wrong
    (folder / "s1234567x.py").write_text("x")
    assert "the name does not begin with a student number" in run("submit", str(folder), *rest).stderr
    config.write_text("student_number = '([a-z'\n")
    assert "not a regular expression" in run("submit", str(file), "--student", "7", *rest).stderr
    config.write_text("student_number = '(a|aa)+b'\n")
    done = run("submit", str(file), "--student", "a" * 150, *rest)
    assert (done.returncode, "too long" in done.stderr) == (2, True)


def test_a_number_that_begins_with_zero_keeps_it(more: dict[str, str], run: Run, file: Path) -> None:
    done = run("submit", str(file), "--student", "007", "--module", "data_mining", "--json")
    assert json.loads(done.stdout)["student"] == "007"
    with rabbitry.connect_blocking(more["RABBITRY_BROKER"]) as connection, connection.channel() as channel:
        message = channel.get("correction_queue_dm")
        assert message is not None
        assert json.loads(message.body)["StudentID"] == "007"


def test_direction_control_characters_are_shown(run: Run, three: str) -> None:
    with Database(three) as database:
        fields = {"StudentID": 7, "Solution": "if admin\u202e # x\u2066:\n\ty", "status": "submitted"}
        more = {"SubmissionID": "bidi", "SolutionName": "a\u202eyp.b", "Remarks": ["\u200fx"]}
        _put(database, Assignment(fields | more))
    shown = run("inbox", "show", "bidi", "--database", three).stdout
    assert "if admin<U+202E> # x<U+2066>:\n    y" in shown
    assert "a<U+202E>yp.b" in shown
    assert "<U+200F>x" in shown


def test_a_scheme_s_bonus_stays_if_it_is_sent_back(run: Run, three: str) -> None:
    back = [{"role": "assistant", "status": "submitted", "remark": "again"}]
    fields = {"StudentID": 7, "Solution": "x", "status": "submitted", "Mark": 11, "OutOf": 10, "SubmissionID": "bonus"}
    with Database(three) as database:
        _put(database, Assignment(fields | {"History": back, "Remarks": ["again"]}))
    assert run("inbox", "decide", "bonus", "--mark", "12", "--out-of", "10", "--database", three).returncode == 2
    assert run("inbox", "decide", "bonus", "--database", three).stdout == "bonus  corrected  11 of 10\n"
