"""The two commands at the top of the README, in a fresh clone with an environment of its own."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.processes import is_gone
from tests.support.waiting import eventually_blocking

ROOT = Path(__file__).parent.parent
_INSTALL_WITHIN = 600.0

pytestmark = [pytest.mark.fresh_clone, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is committed."""
    path = tmp_path_factory.mktemp("fresh") / "rabbitry"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
    return path


def _environment() -> dict[str, str]:
    """Ours, without what a virtual environment or an outer make has put there."""
    ours = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "RABBITRY_BROKER", "ARGS")
    return {key: value for key, value in os.environ.items() if key not in ours}


@pytest.fixture
def up(clone: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`make up` on free ports, and the file with what it says."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["make", "up", "ARGS=--port 0 --web-port 0 --http-port 0"],
            cwd=clone,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        yield process, output
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_MARK = """
import sys
from pathlib import Path
from rabbitry.apps.grading.marking import load_scheme, mark
marking = mark(load_scheme(Path(sys.argv[1])), b"pass", "nearest.py", allow_weak=True)
assert "0 of 3 tests passed" in marking.feedback, marking.feedback
"""


def test_make_up_shows_this_machine_and_ends_cleanly(up: tuple[subprocess.Popen[bytes], Path], clone: Path) -> None:
    process, output = up

    def address() -> str | None:
        assert process.poll() is None, output.read_text()
        found = re.search(r"live: (http://127\.0\.0\.1:\d+/)", output.read_text())
        return found[1] if found else None

    page = eventually_blocking(address, "the page's address", within=_INSTALL_WITHIN)
    assert page is not None

    def samples() -> int:
        known = httpx.get(f"{page}healthz", timeout=60).json()
        return int(known["samples"]) if known["broker"] == "connected" else 0

    eventually_blocking(samples, "a first sample")
    assert "<title>Overview – Rabbitry</title>" in httpx.get(page, timeout=60).text
    # A scheme with a pytest part works with what `make up` has installed.
    scheme = clone / "deploy/course/data_mining/scheme.toml"
    subprocess.run([clone / ".venv/bin/python", "-c", _MARK, scheme], check=True, timeout=180)

    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    os.killpg(process.pid, signal.SIGINT)
    # Rabbitry ends with 0; make, which gets the signal too, waits for it and then ends by the signal itself.
    assert process.wait(90) in (0, -signal.SIGINT), output.read_text()
    # One whose parent ended first stays a zombie until the machine's first process has taken note of it.
    eventually_blocking(lambda: all(is_gone(child) for child in children), "the end of all children")
    said = output.read_text()
    assert "Traceback" not in said
    assert "killed" not in said
    assert "WARNING" not in said
    # One line of each: installing, starting, the address, stopping; make's own end may be one more.
    assert len([line for line in said.splitlines() if line.strip() and not line.startswith("make")]) <= 4, said


def test_make_test_runs_tests(clone: Path) -> None:
    done = subprocess.run(
        ["make", "test", "ARGS=tests/amqp/client/test_publishing.py -q"],
        cwd=clone,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_INSTALL_WITHIN,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
