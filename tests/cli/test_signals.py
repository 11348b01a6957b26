"""Ctrl-C and SIGTERM: every command ends with the same codes, in whatever it is interrupted."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.launcher import Launched, launch
from tests.support.patience import IMPATIENT
from tests.support.plugins import install
from tests.support.waiting import eventually_blocking

_APP = """
import rabbitry
app = rabbitry.App("shop")

@app.stage("order")
async def order(body: dict) -> None: ...
"""
_UNTIL_TOLD = (
    ("web", "--port", "0"),
    ("monitor", "publish"),
    ("monitor", "stats", "-k", "a"),
    ("workqueue", "consume"),
    ("grading", "demonstrator"),
    ("grading", "assistant"),
    ("grading", "coordinator"),
    ("grading", "run"),
    ("grading", "results", "--follow"),
    ("grading", "status", "3f2a", "--watch"),
    ("queues", "--watch"),
    ("worker", "shop:app"),
    ("worker", "shop:app", "--processes", "2"),
)
"""Commands that a signal ends as a matter of course: exit code 0."""
_ONE_SHOT = (
    ("publish", "shop:app", "order"),
    ("workqueue", "produce"),
    ("grading", "submit", "shop.py", "--student", "1", "--module", "data_mining"),
    ("grading", "status", "3f2a"),
    ("dead", "list", "shop"),
    ("topology", "check", "shop:app"),
    ("paused", "shop:app"),
    ("doctor",),
    ("queues",),
    ("bindings", "--json"),
)
"""Commands whose work is left undone: exit code 130."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(_APP)
    return tmp_path


@contextlib.contextmanager
def _started(folder: Path, arguments: tuple[str, ...], more: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [sys.executable, "-m", "rabbitry", *arguments],
        env=commands.environment({"XDG_DATA_HOME": str(folder / "kept")} | more), cwd=folder,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _launched(folder: Path, arguments: tuple[str, ...], more: dict[str, str]) -> Iterator[tuple[Launched, Path]]:
    """Start a command from the launcher, since it is past its imports when it gets a signal; with its output's file.

    Its stdin stays open: a command that reads there must be told by the signal.
    """
    output = folder / "output"
    environment = commands.environment({"XDG_DATA_HOME": str(folder / "kept")} | IMPATIENT | more)
    reading, writing = os.pipe()
    with output.open("wb") as file, open(reading, "rb") as stdin, open(writing, "wb"):
        process = launch(arguments, environment, file.fileno(), file.fileno(), stdin=stdin.fileno(), cwd=folder)
        try:
            yield process, output
        finally:
            process.kill()
            process.wait()


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    # Its stdin stays open: who reads there must be told by the signal.
    code = process.wait(90)
    return code, process.communicate()[1]


@pytest.mark.parametrize("arguments", [*_UNTIL_TOLD, *_ONE_SHOT], ids=" ".join)
def test_a_signal_ends_commands_that_wait_for_a_silent_broker(folder: Path, arguments: tuple[str, ...]) -> None:
    for number in _SIGNALS:
        # It takes connections and never answers.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            more = {"RABBITRY_BROKER": f"amqp://{address}/", "RABBITRY_MANAGEMENT": f"http://{address}"}
            silent.settimeout(90)
            with _launched(folder, arguments, more) as (process, output), silent.accept()[0]:
                process.send_signal(number)
                code = process.wait(90)
        said = output.read_text()
        assert code == (0 if arguments in _UNTIL_TOLD else 130), said
        assert ("rabbitry: interrupted\n" in said) is (arguments in _ONE_SHOT), said
        assert "Traceback" not in said
        assert "Aborted" not in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("broker", "--memory", "--port", "0", "--no-management"), 0),
        (("up", "--memory", "--port", "0", "--web-port", "0", "--http-port", "0"), 0),
        (("web", "--port", "0"), 0),
        (("grading", "run"), 0),
        (("grading", "results", "--follow"), 0),
        (("workqueue", "produce"), 130),
        (("grading", "inbox", "list"), 130),
        (("grading", "export"), 130),
    ],
    ids=str,
)
def test_a_signal_ends_commands_that_have_just_started(folder: Path, arguments: tuple[str, ...], code: int) -> None:
    for number in _SIGNALS:
        # What would end by itself waits for a broker or a database that never answers.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            more = {"RABBITRY_BROKER": f"amqp://{address}/", "RABBITRY_DATABASE": f"postgresql://{address}/x"}
            with _started(folder, arguments, more if code else {}) as process:
                status = Path(f"/proc/{process.pid}/status")

                def answers(status: Path = status) -> bool:
                    # Python itself catches SIGINT a moment before the command does, so SIGTERM shows that it has begun.
                    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status.read_text())
                    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

                eventually_blocking(answers, "its handlers")
                process.send_signal(number)
                found, said = _ended(process)
        assert found == code, said
        assert "Traceback" not in said
        assert "Aborted" not in said


def test_a_signal_that_a_library_wraps_in_its_own_error_still_counts(tmp_path: Path) -> None:
    # pydantic does so while it is imported.
    code = """
        import os, signal, typer
        from rabbitry.apps import Plugin

        commands = typer.Typer()

        @commands.command()
        def late() -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:
                raise ValueError("no schema") from error

        plugin = Plugin(name="late", title="X", commands="late_app:commands")
    """
    done = commands.run("late", more=install(tmp_path, "late", code))
    assert (done.returncode, done.stderr) == (130, "rabbitry: interrupted\n")


@pytest.mark.parametrize("number", _SIGNALS)
@pytest.mark.parametrize("dropping", ["weakref.finalize(holder, send)", "weakref.ref(holder, lambda _: send())"])
def test_a_signal_whose_exception_python_drops_ends_a_command(tmp_path: Path, dropping: str, number: int) -> None:
    # As one that comes in the callback of a weak reference that the import of a module makes.
    code = f"""
        import os, signal, time, typer, weakref
        from rabbitry.apps import Plugin

        commands = typer.Typer()

        class Holder: pass

        @commands.command()
        def late() -> None:
            def send() -> None:
                os.kill(os.getpid(), {int(number)})

            holder = Holder()
            kept = {dropping}
            del holder
            time.sleep(120)

        plugin = Plugin(name="late", title="X", commands="late_app:commands")
    """
    done = commands.run("late", more=install(tmp_path, "late", code))
    assert (done.returncode, done.stderr) == (130, "rabbitry: interrupted\n")


def test_a_signal_that_is_sent_again_while_python_still_drops_it_ends_a_command(tmp_path: Path) -> None:
    # As on a busy machine, where the timer's time is over before the thread that started it goes on.
    code = """
        import os, signal, threading, time, typer, weakref
        from rabbitry.apps import Plugin

        commands = typer.Typer()
        real = threading.Timer.start
        early = 3

        def start(timer: threading.Timer) -> None:
            global early
            early -= 1
            if early < 0:
                real(timer)
            else:
                timer.function(*timer.args)

        class Holder: pass

        @commands.command()
        def late() -> None:
            threading.Timer.start = start
            holder = Holder()
            kept = weakref.ref(holder, lambda _: os.kill(os.getpid(), signal.SIGTERM))
            del holder
            time.sleep(60)
            os._exit(99)

        plugin = Plugin(name="late", title="X", commands="late_app:commands")
    """
    done = commands.run("late", more=install(tmp_path, "late", code))
    assert (done.returncode, done.stderr) == (130, "rabbitry: interrupted\n")


def test_the_second_signal_ends_a_command_that_waits_for_a_thread(folder: Path) -> None:
    program = (
        "import threading, time; from rabbitry.runtime.service import run_service\n"
        "async def service(stop):\n"
        "    print('begun', flush=True)\n"
        "    await stop.wait()\n"
        "    threading.Thread(target=time.sleep, args=(120,)).start()\n"
        "    return 0\n"
        "run_service(service)\n"
        "print('done', flush=True)\n"
    )
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "done\n"  # and Python waits for the thread
            process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 130
        finally:
            process.kill()
