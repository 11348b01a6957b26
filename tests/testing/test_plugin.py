"""The pytest plugin as other projects get it: from the installation, in a pytest run of its own."""

import subprocess
import sys
from pathlib import Path

_TESTS = """
import socket

seen = set()


def test_it_runs(rabbitry_broker):
    seen.add(rabbitry_broker.port)
    with socket.create_connection((rabbitry_broker.host, rabbitry_broker.port)) as client:
        client.sendall(b"AMQP\\x00\\x00\\x09\\x01")
        assert client.recv(1) == b"\\x01"


def test_the_next_has_its_own(rabbitry_broker, request):
    (before,) = seen
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", before)) != 0 or before == rabbitry_broker.port
"""

_LAZY = """
import sys


def test_nothing_is_imported_before_a_test_asks(request):
    assert "rabbitry.testing.plugin" in sys.modules
    assert [name for name in sys.modules if name.startswith("rabbitry.broker") or name == "asyncio.events"] == []
    request.getfixturevalue("rabbitry_broker")
    assert "rabbitry.broker" in sys.modules
"""


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=50)


def test_the_fixture_is_there_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(_TESTS)
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_run_that_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_lazy.py").write_text(_LAZY)
    # The plugins of this project's own environment import asyncio and much more.
    others = [option for name in ("anyio", "hypothesispytest", "timeout") for option in ("-p", f"no:{name}")]
    done = _pytest(tmp_path, *others)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_it_says_what_it_brings(tmp_path: Path) -> None:
    done = _pytest(tmp_path, "--fixtures")
    assert "rabbitry_broker" in done.stdout
    assert "A running broker of this test's own" in done.stdout
