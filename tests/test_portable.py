"""Client, flow and broker need nothing that only POSIX has: they work where its modules and functions are absent."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.waiting import WITHIN, eventually_blocking


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.portable_program", *words],
        capture_output=True, text=True, timeout=150, env=commands.environment({}), check=False,
    )  # fmt: skip


def test_client_and_flow_run_without_what_only_posix_has(embedded_url: str) -> None:
    done = _run("rounds", embedded_url)
    assert (done.returncode, done.stdout) == (0, "x12 y\n\n"), done.stderr


def test_a_broker_runs_without_what_only_posix_has(tmp_path: Path) -> None:
    done = _run("broker", str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (0, "x12 0 x12 1 x12\n\n"), done.stderr
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "broker.sqlite",
        "broker.sqlite-mark",
        "lock",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rabbitry", "broker", "--port", "0", "--memory", "--management-port", "0"], "rabbitry broker ready amqp://"),
        (["rabbitry", "worker", "tests.flow._kinds:kinds", "--stage", "struct", "--broker", "{url}"], "kinds: "),
        (
            [
                "rabbitry",
                "worker",
                "tests.flow._kinds:kinds",
                "--processes",
                "2",
                "--log-level",
                "debug",
                "--broker",
                "{url}",
            ],
            "kinds: ",
        ),
    ],
    ids=["broker", "worker", "processes"],
)
def test_a_command_runs_until_ctrl_c_without_what_only_posix_has(
    tmp_path: Path, embedded_url: str, words: list[str], says: str
) -> None:
    output = tmp_path / "output"
    words = [word.format(url=embedded_url) for word in words]
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.portable_program", *words],
            stdout=file, stderr=file, env=commands.environment({}),
        )  # fmt: skip
    try:
        eventually_blocking(lambda: says in output.read_text() or process.poll() is not None, f"{says!r} or its end")
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN) == 0, output.read_text()
        assert "Traceback" not in output.read_text()
    finally:
        process.kill()
        process.wait()


def test_up_says_what_to_start_in_its_place() -> None:
    done = _run("rabbitry", "up")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rabbitry: `rabbitry up` does not run on Windows: start `rabbitry broker`, `rabbitry web` and "
        "`rabbitry worker` each by itself"
    ]
