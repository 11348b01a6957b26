"""`rabbitry broker` and `rabbitry up` where a step of the start fails: one line, and nothing is left behind."""

import gc
import itertools
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rabbitry.cli import broker as broker_command
from tests.broker.starting import is_kept, keep_a_message
from tests.support import commands
from tests.support.ports import free_port

_NO_SERVER = "import sys\nif 'broker' in sys.orig_argv: sys.modules['rabbitry.broker._management.server'] = None\n"
"""A start-up file of Python with which the broker's management API, and nothing else, can't be loaded."""

Prepare = Callable[[Path, int], list[str]]


def _taken_port(folder: Path, taken: int) -> list[str]:
    return ["--port", str(taken)]


def _taken_management_port(folder: Path, taken: int) -> list[str]:
    return ["--management-port", str(taken)]


def _missing_certificate(folder: Path, taken: int) -> list[str]:
    return ["--tls-cert", str(folder / "missing.pem")]


def _bad_certificate(folder: Path, taken: int) -> list[str]:
    (folder / "bad.pem").write_text("no certificate")
    return ["--tls-cert", str(folder / "bad.pem")]


def _newer_store(folder: Path, taken: int) -> list[str]:
    (folder / "other").mkdir()
    (folder / "other" / "broker.sqlite").mkdir()
    return ["--data", str(folder / "other")]


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        (_taken_port, 2, "port {taken} is taken"),
        (_taken_management_port, 2, "port {taken} is taken"),
        (_missing_certificate, 2, "--tls-cert '{folder}/missing.pem' can't be read: No such file"),
        (_bad_certificate, 2, "--tls-cert '{folder}/bad.pem' holds no PEM and no certificate: give"),
        (_newer_store, 1, "can't be read: Is a directory"),
    ],
)
async def test_a_start_that_fails_prints_one_line_and_frees_ports_and_folder(
    prepare: Prepare, code: int, words: str, tmp_path: Path
) -> None:
    await keep_a_message(tmp_path)
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        options = ["--port", str(port), "--management-port", "0", "--data", str(tmp_path), "--log-level", "warning"]
        done = commands.run("broker", *options, *prepare(tmp_path, taken))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("rabbitry: ")
    assert words.format(taken=taken, folder=tmp_path) in line
    socket.create_server(("127.0.0.1", port)).close()
    assert await is_kept(tmp_path)


def _without_management(folder: Path) -> dict[str, str]:
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(_NO_SERVER)
    return {"PYTHONPATH": str(folder / "python")}


async def test_a_broker_whose_management_api_cannot_be_loaded_ends_with_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await keep_a_message(data)
    ports = [free_port(), free_port()]
    options = ("--port", str(ports[0]), "--management-port", str(ports[1]), "--data", str(data))
    more = _without_management(tmp_path)
    with commands.service("broker", *options, "--log-level", "warning", more=more, anew=True) as broker:
        assert broker.process.wait(120) == 1
        ready, line = broker.output.splitlines()
    assert ready == f"rabbitry broker ready amqp://127.0.0.1:{ports[0]}/ http://127.0.0.1:{ports[1]}/"
    assert line.startswith("rabbitry: can't load the management API (ModuleNotFoundError: ")
    assert line.endswith("or run the broker without it (--no-management)")
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    assert await is_kept(data)


def test_up_ends_if_the_management_api_of_its_broker_cannot_be_loaded(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    more = _without_management(tmp_path) | {"TMPDIR": str(temporary)}
    ports = [free_port(), free_port(), free_port()]
    options = zip(("--port", "--web-port", "--management-port"), map(str, ports), strict=True)
    done = commands.run("up", *itertools.chain(*options), "--apps", "", "--memory", more=more, within=180)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("rabbitry: can't load the management API (ModuleNotFoundError: ")
    assert done.stderr.count("can't load the management API") == 1
    assert "Traceback" not in done.stderr
    for port in ports:  # the children that inherited the listening sockets are gone, too
        socket.create_server(("127.0.0.1", port)).close()
    assert [*temporary.iterdir()] == []


def test_the_threads_of_the_broker_switch_often(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []

    def run(serve: partial[object]) -> int:
        found.append(sys.getswitchinterval())
        for listener in serve.args[0].config.listeners:
            listener.close()
        return 0

    monkeypatch.setattr(broker_command, "run_service", run)
    before, threshold = sys.getswitchinterval(), gc.get_threshold()
    try:
        outcome = CliRunner().invoke(broker_command.app, ["--port", "0", "--memory", "--no-management"])
    finally:
        sys.setswitchinterval(before)
        gc.set_threshold(*threshold)
    assert outcome.exit_code == 0, outcome.output
    assert found == [pytest.approx(0.001)]
