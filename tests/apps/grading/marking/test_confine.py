"""Confinement of submissions on machines of every kind; nothing runs where it is impossible."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry.apps.grading.exceptions import SandboxFailed, SandboxUnavailable
from rabbitry.apps.grading.marking import Marking, _bubblewrap, mark
from rabbitry.apps.grading.marking._weak import namespaces
from tests.apps.grading.marking.conftest import MakeScheme

_PARTS = '[[part]]\nname = "x"\npoints = 1\ncommand = "sh main.py"\n'


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", "/nonexistent")
    _bubblewrap.bubblewrap.cache_clear()
    yield
    _bubblewrap.bubblewrap.cache_clear()


@pytest.mark.usefixtures("no_bubblewrap")
def test_without_bubblewrap_nothing_runs(scheme: MakeScheme) -> None:
    with pytest.raises(SandboxUnavailable, match=r"is not installed\. Install .*apt-get install bubblewrap"):
        mark(scheme(_PARTS), b"true", "main.py")


@pytest.mark.usefixtures("no_bubblewrap")
def test_where_bubblewrap_does_not_work_nothing_runs(
    scheme: MakeScheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces for you >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"bubblewrap fails: no namespaces for you\. Install"):
        mark(scheme(_PARTS), b"true", "main.py")


@pytest.mark.usefixtures("no_bubblewrap")
def test_a_sandbox_that_breaks_later_is_not_the_submissions_fault(
    scheme: MakeScheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bwrap"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checked = scheme(_PARTS)
    _bubblewrap.bubblewrap()
    tool.write_text("#!/bin/sh\necho out of everything >&2\nexit 1\n")
    with pytest.raises(SandboxFailed, match="started no sandbox: out of everything"):
        mark(checked, b"true", "main.py")


def test_an_unsupported_machine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "m68k")
    with pytest.raises(SandboxUnavailable, match="this machine is m68k"):
        _bubblewrap.Bubblewrap("bwrap")


def test_a_scheme_readable_by_submissions_is_refused(
    scheme: MakeScheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = scheme(_PARTS)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="every submission can read"):
        mark(checked, b"true", "main.py")


def _mark_weakly(scheme: MakeScheme, program: str, limits: str = "", expect: str = "") -> Marking:
    parts = _PARTS + (f'expect = {{ contains = "{expect}" }}\n' if expect else "") + f"limits = {{ {limits} }}\n"
    return mark(scheme(parts), program.encode(), "main.py", allow_weak=True)


@pytest.mark.usefixtures("no_bubblewrap")
def test_the_weak_sandbox_marks_a_trusted_submission(scheme: MakeScheme) -> None:
    assert _mark_weakly(scheme, "pwd; cat main.py", expect="cat main.py").mark == 1


@pytest.mark.usefixtures("no_bubblewrap")
@pytest.mark.parametrize(
    ("program", "limits", "why"),
    [
        ("while true; do :; done", "cpu_seconds = 1, wall_seconds = 100", "used more than 1 s of CPU time"),
        ("sleep 600", "wall_seconds = 1", "ran longer than 1 s"),
        ("while true; do echo yes yes yes yes yes; done", 'output = "4 KiB"', "printed more than 4 KiB"),
        ("head -c 9M /dev/zero > x; sleep 600", 'disk = "8 MiB"', "wrote more than 8 MiB"),
        ("head -c 9M /dev/zero > x", 'file_size = "1 MiB"', "SIGXFSZ"),
        ("b() { b | b & }; (b); exec sleep 600", "processes = 16, wall_seconds = 2", "ran longer than 2 s"),
    ],
)
def test_the_weak_sandbox_enforces_limits_and_leaves_nothing(
    scheme: MakeScheme, program: str, limits: str, why: str
) -> None:
    assert why in _mark_weakly(scheme, program, limits).parts[0].output


@pytest.mark.usefixtures("no_bubblewrap")
def test_the_weak_sandbox_leaves_no_memory_after_a_submission(scheme: MakeScheme) -> None:
    calls = "my @c = map { syscall($_, 0, 4096, 01600) } (29, 64, 68, 253); print qq(@c)"
    found = _mark_weakly(scheme, f"test $(uname -m) = x86_64 || exit 0; perl -e '{calls}'; false").parts[0]
    assert "-1 -1 -1 -1" in found.output


@pytest.mark.usefixtures("no_bubblewrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="files of a user of its own are known by it")
def test_the_weak_sandbox_leaves_no_file_anywhere(scheme: MakeScheme) -> None:
    name = f"rabbitry-test-{os.getpid()}"
    places = [Path("/dev/shm", name), Path("/var/tmp", name)]  # noqa: S108  # it is about these
    program = f"mkdir -p {places[0]}/x/y && echo x > {places[1]} && touch {places[0]}/f && ls -d {places[0]}"
    assert _mark_weakly(scheme, program, expect=name).mark == 1
    assert not any(place.exists() for place in places)
    many = f"mkdir {places[0]}; perl -e 'for (0 .. 30000) {{ open my $f, qq(>), qq({places[0]}/$_) }}'; sleep 600"
    assert "made more than 20000 files" in _mark_weakly(scheme, many, "wall_seconds = 100").parts[0].output
    assert not places[0].exists()


@pytest.mark.usefixtures("no_bubblewrap")
def test_the_weak_sandbox_leaves_no_daemon(scheme: MakeScheme) -> None:
    program = "setsid sleep 86123 >/dev/null 2>&1 </dev/null & trap '' HUP TERM; sleep 0.2; ls main.py"
    assert _mark_weakly(scheme, program, expect="main.py").mark == 1
    found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"86123" in _read(path)]
    assert found == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.usefixtures("no_bubblewrap")
def test_the_weak_sandbox_removes_files_that_resist(scheme: MakeScheme) -> None:
    deep = "perl -e 'for (1 .. 3000) { mkdir q(dd); chdir q(dd) }'"
    marking = _mark_weakly(scheme, f"mkdir no && touch no/file && chmod 0 no; {deep}; sleep 600", "wall_seconds = 100")
    assert "made more than 20000 files" in marking.parts[0].output  # or nested too deeply to count


@pytest.mark.usefixtures("no_bubblewrap")
@pytest.mark.skipif(not namespaces(), reason="the kernel gives no namespaces here")
def test_the_weak_sandbox_denies_the_network_if_the_kernel_allows(scheme: MakeScheme) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = f"exec 3<>/dev/tcp/127.0.0.1/{listener.getsockname()[1]}"
        parts = _PARTS.replace('"sh main.py"', '["bash", "main.py"]')
        marking = mark(scheme(parts), program.encode(), "main.py", allow_weak=True)
        assert "Network is unreachable" in marking.feedback or "refused" in marking.feedback
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


_AS_USER = """
import os, socket, sys
from pathlib import Path
from rabbitry.apps.grading.marking import load_scheme, mark
from rabbitry.apps.grading.marking.scheme import Limits

assert os.getuid() == 12345
with socket.create_server(("127.0.0.1", 0)) as listener:
    program = f'''
import os, socket
def attempt(what, *arguments):
    try: what(*arguments)
    except OSError as error: print(error.strerror)
    else: print("done:", what, arguments)
attempt(socket.create_connection, ("127.0.0.1", {listener.getsockname()[1]}), 5)
attempt(open, {sys.argv[1]!r})
attempt(open, "/rabbitry/x", "w")
attempt(open, "/dev/x", "w")
attempt(os.kill, {os.getpid()}, 9)
attempt(os.memfd_create, "x")
try: x = b"x" * (1 << 30)
except MemoryError: print("no memory")
forks = 0
try:
    while os.fork() or os._exit(0): forks += 1
except OSError: print("forks", forks)
n = 0
while True:
    open(f"f{{n}}", "w").close()
    n += 1
'''
print(mark(load_scheme(Path(sys.argv[1])), program.encode(), "main.py").parts[0].output)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs as no root then")
def test_a_user_other_than_root_has_the_same_limits(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o777)
    tmp_path.chmod(0o755)
    file = tmp_path / "scheme.toml"
    file.write_text(
        '[scheme]\nname = "x"\nfile = "main.py"\n'
        '[[part]]\nname = "x"\npoints = 1\ncommand = ["python3", "-u", "main.py"]\n'
        'limits = { memory = "256 MiB", processes = 20, wall_seconds = 90, cpu_seconds = 30 }\n'
    )
    ids = ["--reuid=12345", "--regid=12345", "--clear-groups"]
    done = subprocess.run(
        [*_readable_by_all(tmp_path), "setpriv", *ids, "--", sys.executable, "-B", "-c", _AS_USER, str(file)],
        env={**os.environ, "TMPDIR": str(own)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "made more than 20000 files"
    assert [line.replace("No such process", "none") for line in lines[2:8]] == [
        "Connection refused",
        "No such file or directory",
        "Read-only file system",
        "Read-only file system",
        "none",
        "Operation not permitted",
    ]
    assert lines[8] == "no memory"
    assert 10 < int(lines[9].removeprefix("forks ")) <= 20
    assert list(own.iterdir()) == []


def _readable_by_all(tmp_path: Path) -> list[str]:
    """Return the beginning of a command that can read Python, this repository and `tmp_path` as any user."""
    argv = ["bwrap", "--dev-bind", "/", "/"]
    hidden: set[Path] = set()
    for path in (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[4], tmp_path):
        closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
        if closed and closed[0] not in hidden:
            hidden.add(closed[0])
            argv += ["--perms", "0755", "--tmpfs", str(closed[0])]
        if closed:
            for folder in reversed(path.parents):
                if folder.is_relative_to(closed[0]) and folder != closed[0]:
                    argv += ["--perms", "0755", "--dir", str(folder)]
            argv += ["--bind", str(path), str(path)]
    return [*argv, "--"]
