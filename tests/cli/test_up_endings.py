"""What ends `rabbitry up` for good, what it prints then, and that the advice works as printed."""

import os
import re
import shlex
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

import rabbitry
from rabbitry.exceptions import NotFound
from tests.support import commands
from tests.support.commands import Service
from tests.support.ports import free_port
from tests.support.processes import children_of
from tests.support.waiting import eventually_blocking

_FREE = ("--port", "0", "--web-port", "0", "--http-port", "0", "--management-port", "0")
_PAGE = r"live: (http://\S+/)"
_MONITOR = ("up", *_FREE, "--memory", "--apps", "monitor")

Prepare = Callable[[Path], dict[str, str]]


def _last_line(output: str) -> str:
    return output.splitlines()[-1]


def _newer_store(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "broker.sqlite") as store:
        store.execute("CREATE TABLE a (b)")
        store.execute("PRAGMA user_version = 99")
    return {}


def _newer_records(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "grading.sqlite3") as records:
        records.execute("CREATE TABLE alembic_version (version_num TEXT)")
        records.execute("INSERT INTO alembic_version VALUES ('99')")
    return {}


def _store_is_a_folder(folder: Path) -> dict[str, str]:
    (folder / "broker.sqlite").mkdir()
    return {}


def _records_are_a_folder(folder: Path) -> dict[str, str]:
    (folder / "grading.sqlite3").mkdir()
    return {}


def _foreign_store(folder: Path) -> dict[str, str]:
    (folder / "broker.sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))
    return {}


def _no_folder(folder: Path) -> dict[str, str]:
    folder.rmdir()
    folder.write_text("a file")
    return {}


def _broken_course(folder: Path) -> dict[str, str]:
    (folder / "grading.toml").write_text("modules = [")
    return {"RABBITRY_GRADING": str(folder / "grading.toml")}


def _missing_course(folder: Path) -> dict[str, str]:
    return {"RABBITRY_GRADING": str(folder / "missing.toml")}


def _bad_setting(_: Path) -> dict[str, str]:
    return {"APP_PORT": "x"}


def _has_keeper(url: str) -> bool:
    """Whether a keeper answers questions."""
    with rabbitry.connect_blocking(url) as connection:
        try:
            return connection.channel().declare_queue("crawl.questions", passive=True).consumer_count > 0
        except NotFound:
            return False


@pytest.mark.parametrize(
    ("prepare", "apps", "code", "words"),
    [
        (_newer_store, "", 1, "written by a newer Rabbitry"),
        (_store_is_a_folder, "", 1, "can't be read: Is a directory"),
        (_foreign_store, "", 1, "is not a store of Rabbitry's broker"),
        (_no_folder, "", 1, "it is not a folder"),
        (_newer_records, "grading", 1, "schema '99'"),
        (_records_are_a_folder, "grading", 2, "is a folder"),
        (_broken_course, "grading", 2, "grading.toml"),
        (_missing_course, "grading", 2, "missing.toml"),
        (_bad_setting, "monitor", 2, "APP_PORT is 'x'"),
    ],
)
def test_a_child_that_can_never_start_ends_up_with_its_last_line(
    tmp_path: Path, prepare: Prepare, apps: str, code: int, words: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    done = commands.run("up", *_FREE, "--apps", apps, "--data", str(folder), more=prepare(folder), within=180)
    assert done.returncode == code, done.stderr
    assert words in _last_line(done.stderr)
    assert _last_line(done.stderr).startswith("rabbitry: ")
    assert done.stderr.count(words) == 1
    assert "WARNING" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--web-port", "--http-port", "--management-port"])
def test_a_taken_port_ends_up_and_is_named(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = commands.run(*_MONITOR, option, port, within=180)
    assert done.returncode == 2, done.stderr
    assert f"port {port} is taken" in _last_line(done.stderr)
    assert ("nothing answered there" in done.stderr) == (option == "--port")


def _run_advice(words: str, *more: str) -> tuple[str, ...]:
    """The options of a command that was printed, as a shell would read them."""
    return (*shlex.split(words), *more)


def test_the_advice_of_a_second_up_on_the_same_data_works(tmp_path: Path) -> None:
    shared = {"XDG_DATA_HOME": str(tmp_path)}
    with commands.service("up", *_FREE, "--apps", "", more=shared) as first:
        first.wait_for(_PAGE)
        second = commands.run("up", *_FREE, "--apps", "", more=shared, within=180)
        assert second.returncode == 1
        said = _last_line(second.stderr)
        assert "another broker uses the data folder" in said
        beside = re.search(r"\((--port 0 --data DIR)\)", said)
        instead = re.search(r"\((--broker \S+)\)", said)
        assert beside is not None
        assert instead is not None
        for options in (beside[1].replace("DIR", str(tmp_path / "other")), instead[1]):
            with commands.service("up", *_run_advice(options, "--apps", "monitor"), more=shared) as third:
                page = third.wait_for(_PAGE)[1]
                eventually_blocking(lambda: _samples(page), "samples")  # noqa: B023 - called in the loop
                third.process.send_signal(signal.SIGINT)
                assert third.process.wait(90) == 0, third.output


def test_the_advice_if_the_usual_port_is_taken_works_as_printed(tmp_path: Path) -> None:
    with commands.service("up", *_FREE, "--apps", "", more={"XDG_DATA_HOME": str(tmp_path)}) as first:
        port = first.wait_for(r"broker on amqp://127\.0\.0\.1:(\d+)/")[1]
        first.wait_for(_PAGE)
        second = commands.run("up", *_FREE, "--port", port, "--apps", "", more={"XDG_DATA_HOME": str(tmp_path)})
        assert second.returncode == 2
        assert "an AMQP broker answers there" in second.stderr
        advice = re.findall(r"rabbitry up (--[^,\n]*)", second.stderr)
        assert [words.split()[0] for words in advice] == ["--broker", "--port"]
        for words in advice:
            options = _run_advice(words.replace("DIR", str(tmp_path / "other")), "--apps", "")
            with commands.service("up", *options, more={"XDG_DATA_HOME": str(tmp_path)}) as third:
                third.wait_for(_PAGE)
                third.process.send_signal(signal.SIGINT)
                assert third.process.wait(90) == 0, third.output


def _samples(page: str) -> int:
    try:
        return int(httpx.get(f"{page}healthz", timeout=60).json()["samples"])
    except httpx.HTTPError:
        return 0


def _children(up: Service) -> dict[str, psutil.Process]:
    return children_of(up.process.pid)


def test_up_waits_for_a_broker_that_is_not_there_yet() -> None:
    port = free_port()
    with commands.service("up", *_FREE, "--broker", f"amqp://127.0.0.1:{port}/") as up:
        page = up.wait_for(_PAGE)[1]
        up.wait_for(r"trying again in")
        with commands.service("broker", "--port", str(port), "--memory", "--no-management"):
            eventually_blocking(lambda: _samples(page), "samples")
            assert up.process.poll() is None
            assert "started again" not in up.output


def test_a_child_killed_each_time_before_it_is_ready_ends_up(tmp_path: Path) -> None:
    # It starts the children with its own interpreter, and this one ends like a broken one.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'monitor' in sys.orig_argv: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = commands.run(*_MONITOR, more={"PYTHONPATH": str(tmp_path)}, within=180)
    assert done.returncode == 1, done.stderr
    assert _last_line(done.stderr) == "rabbitry: the agent ended with signal 9"
    assert done.stderr.count("started again") == 4


def test_a_defect_that_ends_a_child_is_the_last_line(tmp_path: Path) -> None:
    # `sitecustomize` breaks what the child imports, as a damaged installation would.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'monitor' in sys.orig_argv: sys.modules['rabbitry.apps.monitor.agent'] = object()\n"
    )
    done = commands.run(*_MONITOR, more={"PYTHONPATH": str(tmp_path)}, within=180)
    assert done.returncode == 1, done.stderr
    assert "Traceback" in done.stderr
    assert _last_line(done.stderr).startswith("rabbitry: ImportError: cannot import name")
    assert "started again" not in done.stderr


@pytest.mark.parametrize("option", ["--memory", "--data"])
def test_all_data_are_in_the_given_folder(tmp_path: Path, option: str) -> None:
    home, data, temporary = tmp_path / "home", tmp_path / "data", tmp_path / "temporary"
    temporary.mkdir()
    more = {"XDG_DATA_HOME": str(home), "TMPDIR": str(temporary)}
    options = [option] if option == "--memory" else [option, str(data)]
    solution = tmp_path / "solution.py"
    solution.write_text("print(42)\n")
    with commands.service("up", *_FREE, *options, more=more) as up:
        url = up.wait_for(r"broker on (amqp://\S+/)")[1]
        page = up.wait_for(_PAGE)[1]
        handed_in = commands.run(
            "grading", "submit", str(solution), "--student", "7", "--module", "data_mining", "--broker", url, more=more
        )
        assert handed_in.returncode == 0, handed_in.stderr

        def confirmed() -> bool:
            found = httpx.get(f"{page}grading/api/overview", timeout=60).json()["submissions"]
            return [one["status"] for one in found] == ["confirmed"]

        eventually_blocking(confirmed, "the page to know the confirmed submission")
        eventually_blocking(lambda: _has_keeper(url), "the keeper")
        kept = {path.name for path in data.rglob("*")} if data.exists() else set()
        assert ({"broker.sqlite", "grading.sqlite3", "crawl.sqlite3"} <= kept) is (option == "--data")
        assert not home.exists()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output
    assert not list(temporary.iterdir())
    assert not home.exists()


def test_memory_and_database_can_not_be_combined() -> None:
    done = commands.run("up", *_FREE, "--memory", more={"RABBITRY_DATABASE": "sqlite:////nowhere/records"})
    assert done.returncode == 2
    assert "RABBITRY_DATABASE" in done.stderr


@pytest.mark.parametrize(
    ("apps", "running"),
    [
        ("monitor", ["broker", "monitor", "web"]),
        ("grading", ["broker", "grading", "web"]),
        ("monitor, grading", ["broker", "grading", "monitor", "web"]),
        ("crawl,monitor", ["broker", "crawl", "monitor", "web"]),
        ("", ["broker", "web"]),
    ],
)
def test_only_the_requested_apps_run(apps: str, running: list[str]) -> None:
    with commands.service("up", *_FREE, "--memory", "--apps", apps) as up:
        up.wait_for(_PAGE)
        eventually_blocking(lambda: sorted(_children(up)) == running, f"{running}")
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


def test_an_unknown_app_is_refused() -> None:
    done = commands.run("up", *_FREE, "--apps", "monitor,nonsense")
    assert done.returncode == 2
    assert done.stderr == "rabbitry: --apps: there is no app 'nonsense': choose among monitor, grading, crawl\n"


def test_a_healthy_start_is_quiet_and_ctrl_c_reports_the_stop() -> None:
    with commands.service("up", *_FREE, "--memory") as up:
        page = up.wait_for(_PAGE)[1]
        eventually_blocking(lambda: _samples(page), "samples")
        eventually_blocking(lambda: "grading" in _children(up), "the roles of grading")
        health = psutil.Process(_children(up)["grading"].pid)
        eventually_blocking(lambda: len(health.net_connections("tcp")) > 1, "the roles' connections")
        url = up.wait_for(r"broker on (amqp://\S+/)")[1]
        eventually_blocking(lambda: _has_keeper(url), "the keeper")
        lines = [line for line in up.output.splitlines() if line]
        assert len(lines) == 2, up.output
        assert "starting the broker, the dashboard, the agent, grading, crawl" in lines[0]
        assert lines[1] == f"  Your machines, live: {page}   (Ctrl-C stops everything)"
        os.kill(up.process.pid, signal.SIGINT)
        assert up.process.wait(90) == 0
        said = [line for line in up.output.splitlines() if line][2:]
        assert len(said) == 1, up.output
        assert "stopping" in said[0]
