"""The Dockerfile: a linter's view, that all it copies is there, and its build as far as it goes without an engine."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT, dockerfile, instruction

PLACE = "/usr/local/lib/rabbitry"


def _copied() -> list[str]:
    """What is copied from the repository."""
    copies = [shlex.split(rest) for name, rest in dockerfile() if name == "COPY" and "--from" not in rest]
    return [source for *sources, _ in copies for source in sources]


def test_a_linter_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_that_is_copied_is_there_and_sent_to_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert sorted(_copied()) == sorted(sent)
    assert [name for name in sent if not (ROOT / name).exists()] == []


def test_no_secret_is_sent_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line.startswith("!") and fnmatch("deploy/secrets", line[1:])] == []


def test_it_runs_rabbitry_and_not_as_root() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    [program] = json.loads(instruction("ENTRYPOINT"))
    assert program in scripts
    user, group = instruction("USER").split(":")
    assert int(user) >= 10000
    assert int(group) >= 10000


def test_marking_finds_its_tools() -> None:
    installed = next(rest for name, rest in dockerfile() if name == "RUN" and "apt-get install" in rest)
    assert {"bubblewrap", "util-linux"} <= set(installed.split())


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_the_build_stage_makes_an_environment_that_runs(tmp_path: Path) -> None:
    build, place = tmp_path / "build", tmp_path / "rabbitry"
    build.mkdir()
    for name in _copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, build / name)
    first = dockerfile()[: [name for name, _ in dockerfile()].index("FROM", 1)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of python and pip
    for command in (rest for name, rest in first if name == "RUN"):
        here = command.replace(PLACE, str(place))
        done = subprocess.run(
            ["sh", "-ec", here], cwd=build, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(build)
    for command in ("rabbitry version", "rabbitry grading --help", "python -c 'import pytest'"):
        program, *arguments = shlex.split(command)
        subprocess.run([place / "bin" / program, *arguments], capture_output=True, timeout=60, check=True)
