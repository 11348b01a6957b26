"""Fixtures that write schemes, mark submissions, and check that nothing of them is left."""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rabbitry.apps.grading.marking import Marking, Scheme, load_scheme, mark
from tests.support import programs

MakeScheme = Callable[[str], Scheme]
Run = Callable[..., Marking]


@pytest.fixture(autouse=True)
def sandbox_is_there() -> None:
    """Require bubblewrap for all tests of this folder."""
    programs.require(None if shutil.which("bwrap") else "bubblewrap is not installed (as root: scripts/system-deps)")


@pytest.fixture
def token() -> str:
    """An argument that identifies the processes of a submission."""
    return "token-" + secrets.token_hex(8)


@pytest.fixture
def scheme(tmp_path: Path) -> MakeScheme:
    """Write the parts of a scheme to a file; return the scheme read from it."""

    def make(parts: str) -> Scheme:
        path = tmp_path / "course" / "scheme.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text('[scheme]\nname = "Homework"\nfile = "main.py"\n' + parts)
        return load_scheme(path)

    return make


@pytest.fixture
def run(scheme: MakeScheme, token: str) -> Run:
    """Mark a Python program by a scheme with one part that runs it. Keywords are the part's limits."""

    def mark_it(program: str, *, expect: str = "", allow_weak: bool = False, **limits: object) -> Marking:
        limits = {"wall_seconds": 100} | limits  # on a busy machine the default of 30 s is too short
        said = ", ".join(f"{name} = {value!r}".replace("'", '"') for name, value in limits.items())
        wanted = f"expect = {{ contains = {json.dumps(expect)} }}\n" if expect else ""
        part = f'[[part]]\nname = "runs"\npoints = 4\ncommand = ["python3", "main.py", "{token}"]\n{wanted}'
        return mark(scheme(part + f"limits = {{ {said} }}\n"), program.encode(), "main.py", allow_weak=allow_weak)

    return mark_it


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, token: str) -> Iterator[None]:
    """Fail a test that leaves a process of its submission, a child, a descriptor or a folder."""
    folder = Path(tempfile.mkdtemp())  # other users cannot enter pytest's own folder
    folder.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = set(os.listdir("/proc/self/fd"))
    servers = _children()  # of other tests; they live for the whole run
    yield
    assert of_token(token) == []
    assert _children() <= servers
    folder.rmdir()  # it is empty
    assert set(os.listdir("/proc/self/fd")) <= before


def of_token(token: str) -> list[int]:
    """Return the processes with the token among their arguments, bubblewrap's included."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        # psutil would take four times as long, which each test of this folder pays.
        with contextlib.suppress(OSError):  # gone
            if token.encode() in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def _children() -> set[int]:
    """Return this process's children, those of all its threads."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return found
