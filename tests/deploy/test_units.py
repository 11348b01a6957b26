"""The units of deploy/systemd: accepted by systemd, and what they start is accepted by the command."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from rabbitry.runtime.service import GRACE
from tests.deploy.files import DEPLOY
from tests.support import commands, programs

_UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
_ANALYZE = shutil.which("systemd-analyze")


def _options(unit: Path) -> dict[str, str]:
    """Return the options of a unit's section [Service]; of those that are given several times, the last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # the documented way to keep the case
    parser.read(unit)
    return dict(parser["Service"])


def _verify(folder: Path, *edits: tuple[str, str]) -> str:
    """Return what systemd finds wrong with copies of the units, which start a program that exists here."""
    program = folder / "rabbitry"
    program.touch(mode=0o755)
    for unit in _UNITS:
        text = unit.read_text().replace("/usr/local/lib/rabbitry/bin/rabbitry", str(program))
        for old, new in edits:
            text = text.replace(old, new)
        (folder / unit.name).write_text(text)
    done = subprocess.run(
        [str(_ANALYZE), "verify", "--man=no", *(str(folder / unit.name) for unit in _UNITS)],
        capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    # Units of the machine that ours want are read too; what is wrong with those is not ours.
    return "".join(line for line in done.stderr.splitlines(keepends=True) if "rabbitry" in line)


def test_systemd_accepts_them(tmp_path: Path) -> None:
    programs.require(None if _ANALYZE else "systemd-analyze is not installed (apt-get install systemd)")
    assert len(_UNITS) == 3
    assert _verify(tmp_path) == ""
    wrong = _verify(tmp_path, ("TimeoutStopSec=", "TimeoutStopSeconds="))
    assert wrong.count("TimeoutStopSeconds") == 3, wrong


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_they_start_again_without_rights_that_they_do_not_need(unit: Path) -> None:
    found = _options(unit)
    assert (found["Restart"], found["DynamicUser"], found["NoNewPrivileges"]) == ("always", "yes", "yes")
    assert (found["ProtectSystem"], found["CapabilityBoundingSet"]) == ("strict", "")
    assert "EnvironmentFile=/etc/rabbitry/broker.env" in unit.read_text()
    assert "amqp" not in unit.read_text(), "the URL has a password"


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_the_command_knows_what_they_start(unit: Path) -> None:
    values = {"$APP": ["no_such_module:app"], "$OPTIONS": ["--processes", "1:4", "--health-port", "8080"]}
    words = [word for item in shlex.split(_options(unit)["ExecStart"]) for word in values.get(item, [item])]
    assert words[0] == "/usr/local/lib/rabbitry/bin/rabbitry"
    if words[1] == "worker":
        done = commands.run(*words[1:])
        assert (done.returncode, "'no_such_module' does not import" in done.stderr) == (2, True), done.stderr
    else:
        assert commands.run(*words[1:], "--help").returncode == 0


def test_a_worker_has_more_time_to_end_than_it_takes() -> None:
    found = _options(DEPLOY / "systemd" / "rabbitry-worker@.service")
    deadline = re.search(r"--deadline (\d+)", found["ExecStart"])
    assert deadline is not None
    assert int(found["TimeoutStopSec"]) > int(deadline[1]) + 5 * GRACE
    assert found["KillMode"] == "mixed"
