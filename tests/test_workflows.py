"""The workflows and forms of .github/, and the hooks that run before a commit: checked without GitHub."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
_GITHUB = ROOT / ".github"
_WORKFLOWS = sorted(_GITHUB.glob("workflows/*.yml"))
_PROGRAMS = Path(sys.executable).parent
_SCHEMAS = {
    "github-workflows": _WORKFLOWS,
    "github-issue-forms": [_GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")],
    "github-issue-config": [_GITHUB / "ISSUE_TEMPLATE/config.yml"],
}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return found


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_each_file_fits_its_schema(schema: str) -> None:
    done = subprocess.run(
        [_PROGRAMS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *_SCHEMAS[schema]],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_security_linter_finds_nothing() -> None:
    done = subprocess.run(
        [_PROGRAMS / "zizmor", "--offline", "--format", "json", _GITHUB], capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert json.loads(done.stdout) == [], done.stdout + done.stderr


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: path.name)
def test_each_target_and_script_that_a_workflow_runs_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    assert [name for name in re.findall(r"\bscripts/[\w.-]+", text) if not (ROOT / name).is_file()] == []


def test_the_tests_run_on_each_python_that_the_metadata_name() -> None:
    job = _read(_GITHUB / "workflows/ci.yml")["jobs"]["tests"]
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert job["strategy"]["matrix"]["python"] == named


def test_each_hook_runs_a_program_of_the_environment() -> None:
    hooks = [hook for repo in _read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    programs = [hook["entry"].split()[0] for hook in hooks]
    assert programs
    assert [name for name in programs if not (_PROGRAMS / Path(name).name).is_file()] == []
    assert {str(Path(name).parent) for name in programs} == {".venv/bin"}
