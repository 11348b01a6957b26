"""The small commands, exit codes, and errors in one line."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import rabbitry
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.terminals import shown_by
from tests.support.waiting import eventually_blocking

_SECRET = "a-secret-that-shows-nowhere"


def _one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


def test_version() -> None:
    assert commands.run("version").stdout == f"rabbitry {rabbitry.__version__}\n"
    assert json.loads(commands.run("version", "--json").stdout) == {"version": rabbitry.__version__}


def test_an_unwritable_output_is_reported_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rabbitry", "version"],
            env=commands.environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=90, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "rabbitry: can't write: No space left on device\n")


def test_a_closed_output_is_not_a_failure() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m rabbitry version >&-', sys.executable],
        env=commands.environment(), stderr=subprocess.PIPE, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_log_has_colours_if_forced(more: dict[str, str], coloured: bool) -> None:
    start = "from rabbitry.runtime.logging import *; configure(Level.INFO, as_json=False)"
    program = f"{start}; import logging; logging.warning('said')"
    environment = commands.environment({"TERM": "xterm"} | more)
    shown, _ = shown_by([sys.executable, "-c", program], environment=environment)
    assert b"said" in shown
    assert (b"\x1b[" in shown) is coloured


def test_help_has_every_command_and_an_example_each() -> None:
    overview = commands.run("--help").stdout
    for name in ("up", "broker", "web", "monitor", "doctor", "version"):
        assert f"  {name}" in overview
    for name in ("up", "broker", "web", "doctor"):
        assert "Example:" in commands.run(name, "--help").stdout


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("broker", "--port", "x"), ("web", "--port", "70000"), ("monitor", "stats")]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = commands.run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("pause", "a\udcff", "x"), ("dead", "list", "a\udcff"), ("cancel", "shop", "b\udcff")]
)
def test_a_name_that_is_not_utf_8_is_wrong_usage_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    done = commands.run(*arguments, more={"RABBITRY_BROKER": "amqp://127.0.0.1:1/"})
    assert done.returncode == 2
    assert "is not UTF-8: '" in done.stderr
    assert "\\xff'" in done.stderr


def test_an_unknown_stage_is_wrong_usage(embedded_url: str) -> None:
    for command in ("pause", "resume"):
        done = commands.run(command, "none", "such", "--broker", embedded_url)
        assert (done.returncode, "has no stage 'such' on this broker" in done.stderr) == (2, True), done.stderr


def test_the_broker_prints_when_it_is_ready_and_ends_at_sigterm() -> None:
    for option, page in (("--no-management", ""), ("--management-port=0", r" http://127\.0\.0\.1:\d+/")):
        with commands.service("broker", "--port", "0", option, "--log-level", "error") as broker:
            assert broker.wait_for(rf"\Arabbitry broker ready amqp://127\.0\.0\.1:\d+/{page}\n\Z")
            broker.process.send_signal(signal.SIGTERM)
            assert broker.process.wait(90) == 0


def test_a_taken_management_port_ends_the_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = commands.run("broker", "--port", "0", "--memory", "--management-port", port)
        assert done.returncode == 2
        assert f"port {port} is taken" in done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for command in ("broker", "web"):
            done = commands.run(command, "--port", str(port))
            assert done.returncode == 2
            assert f"port {port} is taken" in done.stderr
            assert _one_line(done.stderr)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
@pytest.mark.parametrize("user", [[], ["--user", "guest"]])
@pytest.mark.parametrize("more", [{}, {"RABBITMQ_PASSWORD": _SECRET}])
def test_a_reachable_broker_needs_a_user_other_than_guest(host: str, user: list[str], more: dict[str, str]) -> None:
    done = commands.run("broker", "--host", host, "--port", "0", *user, more=more)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "give --user NAME and its password, in RABBITMQ_PASSWORD or with --password-file" in done.stderr
    assert ("another user than 'guest'" in done.stderr) is bool(user)
    assert _one_line(done.stderr)


async def test_a_broker_on_any_loopback_address_takes_guest() -> None:
    guest = {"RABBITMQ_PASSWORD": _SECRET}
    options = ("--host", "127.0.0.2", "--port", "0", "--user", "guest", "--memory", "--no-management")
    with commands.service("broker", *options, more=guest) as broker:
        address = broker.wait_for(r"ready amqp://(127\.0\.0\.2:\d+)/")[1]
        async with rabbitry.connect(f"amqp://guest:{_SECRET}@{address}/") as connection:
            assert connection.is_open


async def test_a_user_can_be_set_with_a_password_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{_SECRET}\n")
    with commands.service(
        "broker", "--port", "0", "--management-port", "0", "--user", "ann", "--password-file", str(file)
    ) as broker:
        port = broker.wait_for(r"amqp://127\.0\.0\.1:(\d+)/")[1]
        async with rabbitry.connect(f"amqp://ann:{_SECRET}@127.0.0.1:{port}/") as connection:
            assert connection.is_open
        with pytest.raises(rabbitry.LoginRefused):
            await rabbitry.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
        assert _SECRET not in broker.output


@pytest.mark.parametrize(
    "command", [["broker", "--user", "ann"], ["monitor", "stats", "-k", "pi", "-b", "h", "-c", "ann"]]
)
def test_a_binary_password_file_is_wrong_usage_and_not_shown(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "password"
    file.write_bytes(_SECRET.encode() + b"\xe9\n")
    done = commands.run(*command, "--password-file", str(file))
    assert done.returncode == 2
    assert done.stderr.endswith("can't be read: it is not UTF-8 text\n")
    assert _SECRET not in done.stderr
    assert _one_line(done.stderr)


def test_a_user_without_a_password_is_wrong_usage() -> None:
    done = commands.run("broker", "--port", "0", "--user", "ann")
    assert done.returncode == 2
    assert "RABBITMQ_PASSWORD" in done.stderr


@pytest.mark.parametrize("url", ["amqp://guest:wrong@127.0.0.1:{port}/", "amqp://127.0.0.1:{port}/nope"])
def test_a_page_ends_if_the_broker_refuses_it(url: str) -> None:
    with BrokerProcess() as broker:
        done = commands.run("web", "--port", "0", "--broker", url.format(port=broker.port))
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("rabbitry: ")
    assert "refused" in done.stderr.splitlines()[-1]
    assert "wrong" not in done.stderr.splitlines()[-1]


def test_a_reachable_page_needs_a_password() -> None:
    done = commands.run("web", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "APP_PASSWORD" in done.stderr
    assert _one_line(done.stderr)


def test_logs_can_be_json() -> None:
    with BrokerProcess() as broker:
        more = {"RABBITRY_BROKER": broker.url}
        with commands.service("web", "--port", "0", "--log-json", more=more) as web:
            web.wait_for("broker connected")
            lines = [json.loads(line) for line in web.output.rpartition("\n")[0].splitlines()]
            assert all({"time", "level"} <= line.keys() for line in lines)


# -- doctor ------------------------------------------------------------------------------------------------


def _doctor(broker: str, *more: str) -> tuple[int, dict[str, dict[str, str]]]:
    page = f"http://127.0.0.1:{free_port()}/"
    done = commands.run("doctor", "--json", "--page", page, *more, more={"RABBITRY_BROKER": broker})
    assert "Traceback" not in done.stderr
    return done.returncode, {found["check"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_doctor_reports_a_missing_broker() -> None:
    port = free_port()
    code, found = _doctor(f"amqp://127.0.0.1:{port}/")
    assert code == 3
    assert found["broker"]["verdict"] == "bad"
    assert "Connection refused" in found["broker"]["what"]
    assert "rabbitry broker" in found["broker"]["todo"]


def test_doctor_reports_a_wrong_login_and_virtual_host(broker_url: str) -> None:
    code, found = _doctor(broker_url.replace("guest:guest", f"guest:{_SECRET}"))
    assert (code, found["login"]["verdict"]) == (3, "bad")
    assert _SECRET not in json.dumps(found)
    code, found = _doctor(broker_url.rsplit("/", 1)[0] + "/no-such-vhost")
    assert (code, found["virtual host"]["verdict"]) == (3, "bad")


def test_doctor_reports_that_no_samples_arrive(broker_url: str) -> None:
    code, found = _doctor(broker_url)
    assert code == 0
    assert found["exchange system_info"]["verdict"] == "note"
    assert found["listener"]["verdict"] == "note"


def test_doctor_reports_that_all_is_well(broker_url: str) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    port = free_port()
    with (
        commands.service("web", "--port", str(port), more=more) as web,
        commands.service("monitor", "publish", more=more),
    ):
        web.wait_for("broker connected")
        health = f"http://127.0.0.1:{port}/healthz"
        eventually_blocking(lambda: httpx.get(health, timeout=60).json()["samples"], "samples of the agent")
        done = commands.run("doctor", "--json", "--page", f"http://127.0.0.1:{port}/", more=more)
    found = {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout
    assert {line["verdict"] for line in found.values()} == {"ok"}
    assert {"broker", "login", "samples", "listener", "page", "WebSocket"} <= found.keys()
