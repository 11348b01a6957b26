"""The snippets of docs/testing.md run as they stand there, each in a pytest run of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

_PAGE = Path(__file__).parent.parent.parent / "docs/testing.md"
_SNIPPETS = dict(re.findall(r"^```python\n# (test_\w+\.py)\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL))


def test_every_snippet_is_run() -> None:
    assert len(_SNIPPETS) == _PAGE.read_text().count("```python") == 6


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", _SNIPPETS)
def test_a_snippet_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(_SNIPPETS[name])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed", done.stdout)
