"""The programs of docs/client.md run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import commands

_PAGE = Path(__file__).parents[3] / "docs/client.md"
_PROGRAMS = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL))


def test_every_program_is_run() -> None:
    assert len(_PROGRAMS) == _PAGE.read_text().count("```python") > 0


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_program_runs_as_it_stands(name: str, broker_url: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(_PROGRAMS[name])
    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=tmp_path, env=commands.environment({"RABBITRY_BROKER": broker_url}), capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    expected = {
        "publish.py": "NO_ROUTE",
        "consume.py": "b'work'",
        "recovery.py": ".",  # the broker's version
        "errors.py": "404 NOT_FOUND",
        "script.py": "b'work'",
    }
    assert expected[name] in done.stdout
