"""`rabbitry grading` as students, roles and people use it."""

import asyncio
import csv
import io
import json
import os
import re
import sys
from functools import partial
from pathlib import Path

import pytest

import rabbitry
from rabbitry.apps.grading import asking
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.records import Database, course, inbox
from rabbitry.apps.grading.roles import ROLES
from rabbitry.exceptions import NotFound
from tests.apps.grading._commands import ON_BOTH_BROKERS, Run, records_of
from tests.flow._running import counts
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.terminals import shown_by
from tests.support.waiting import eventually_blocking

_WHO = ("--student", "23200858", "--module", "cloud_computing")
_WAY = ["submitted", "corrected", "validated", "confirmed"]


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


@ON_BOTH_BROKERS
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


def test_a_watch_shows_each_hop_once_in_whatever_order_they_are_recorded(
    more: dict[str, str], database_url: str
) -> None:
    hops = [submission(7, "cloud_computing", b"x", "x.py", "w1")]
    for status, role in zip(_WAY[1:], ROLES, strict=True):
        hops.append(hops[-1].moved(status, role, Decision("automatic", mark=3.0, out_of=4.0)))
    with Database(database_url) as database:
        for hop in (hops[0], hops[2]):
            database.write_now(partial(course.record, assignment=hop))
        with commands.service(
            "grading", "status", hops[0].id, "--watch", "--database", database_url, more=more
        ) as watch:
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


@ON_BOTH_BROKERS
def test_people_work_on_the_command_line(
    more: dict[str, str], run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = file.with_name("course.toml")
    config.write_text("undo = 0\n")  # no decision waits to be taken back
    for name, value in {"RABBITRY_DATABASE": records_of(more), "RABBITRY_GRADING": str(config)}.items():
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
    of_inboxes = (["inbox", "list"], ["inbox", "list", "--role", "assistant"])
    of_course = (["results"], ["results", "--json"], ["export"], ["export", "--format", "json"])
    for command in (*of_inboxes, *of_course):
        done = run(*command)
        told = (0, "no records yet") if command in of_inboxes else (1, "no coordinator answers")
        assert (done.returncode, told[1] in done.stderr) == (told[0], True), command
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
