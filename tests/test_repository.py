"""What holds for the repository as a whole: nothing of one machine in it, packages described, locks that fit."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.blocks import PAGES

ROOT = Path(__file__).parent.parent

# Written so that this file does not hold what it looks for.
_OF_A_MACHINE = {
    "a home folder": re.compile(rb"/(?:home|Users)/[a-z]|[\s\"'=(]/roo[t]/"),
    "a folder of one machine": re.compile(rb"[\s\"'=(]/(?:work|opt|mnt|srv)/[a-z]"),
    "a package registry": re.compile(rb"pypi\.or[g]|pythonhosted\.or[g]|registry\.npmj[s]|deb\.debian\.or[g]"),
    "a local index": re.compile(rb"file:/[/]/(?!etc/passwd)|--(?:extra-)?index-ur[l]|--find-link[s]"),
    "a secret key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KE[Y]"),
}


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.split(b"\0") if name and (path := ROOT / name.decode()).is_file()]


def test_nothing_of_one_machine_is_tracked() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {what}: {match[0].decode(errors='replace')}"
        for path in _tracked()
        for what, pattern in _OF_A_MACHINE.items()
        if (match := pattern.search(path.read_bytes()))
    ]
    assert found == []


def test_no_python_cache_or_database_is_tracked() -> None:
    assert [path for path in _tracked() if path.suffix in {".pyc", ".db", ".log", ".env"}] == []


def test_the_top_folder_holds_only_what_its_readers_look_for_there() -> None:
    files = {path.name for path in _tracked() if path.parent == ROOT}
    named = {"LICENSE", "Makefile", "mkdocs.yml", "pyproject.toml"}
    assert {name for name in files if not name.startswith(".") and not name.endswith((".md", ".lock"))} == named


def _packages() -> list[Path]:
    return sorted(path for top in ("src/rabbitry", "tests") for path in (ROOT / top).rglob("__init__.py"))


@pytest.mark.parametrize("module", _packages(), ids=lambda path: str(path.relative_to(ROOT).parent))
def test_every_package_has_a_docstring(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


def _source_folders() -> list[Path]:
    modules = (ROOT / "src/rabbitry").rglob("*.py")
    return sorted({path.parent for path in modules})


@pytest.mark.parametrize("folder", _source_folders(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_folder_of_modules_is_a_package(folder: Path) -> None:
    assert (folder / "__init__.py").is_file()


def _private_imports(module: Path) -> list[str]:
    """Return the private modules and names of other libraries that a module imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [name for name in names if re.search(r"\._(?!_)", name) and not name.startswith("rabbitry.")]
    return found


def test_no_private_name_of_another_library_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from uvicorn._types import X\nimport a._b\nfrom c import _d, __version__\n")
    assert _private_imports(tmp_path / "bad.py") == ["uvicorn._types.X", "a._b", "c._d"]
    modules = (ROOT / "src/rabbitry").rglob("*.py")
    assert {str(module): names for module in modules if (names := _private_imports(module))} == {}


def _locked(name: str) -> dict[str, str]:
    """The pinned versions of a lock file by canonical name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


def _asked_for() -> tuple[list[Requirement], list[Requirement]]:
    """What pyproject.toml asks for: to run, and to develop beyond that."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    run = [*project["project"]["dependencies"]]
    tested = extras.pop("test")  # the only one that is not in `all`
    run += [entry for extra in extras.values() for entry in extra if not entry.startswith("rabbitry[")]
    run += [*project["build-system"]["requires"], *project["dependency-groups"]["build"]]
    dev = [entry for entry in project["dependency-groups"]["dev"] if isinstance(entry, str)]
    dev += [entry for entry in tested if not entry.startswith("rabbitry[")]
    return [Requirement(entry) for entry in run], [Requirement(entry) for entry in dev]


def _misfits(asked: list[Requirement], locked: dict[str, str]) -> list[str]:
    return [
        str(requirement)
        for requirement in asked
        if not requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ]


def test_the_locks_fit_what_pyproject_asks_for() -> None:
    run, dev = _asked_for()
    assert _misfits(run, _locked("requirements.lock")) == [], "run: make lock"
    assert _misfits(run + dev, _locked("requirements-dev.lock")) == [], "run: make lock"


def test_pytest_parts_of_marking_schemes_run_after_make_up() -> None:
    assert "pytest" in [requirement.name for requirement in _asked_for()[0]]


def test_both_locks_name_the_same_versions() -> None:
    run, dev = _locked("requirements.lock"), _locked("requirements-dev.lock")
    assert {name: dev.get(name) for name in run} == run


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_a_hash(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if "--hash=sha256:" not in line] == []


def test_the_former_name_is_nowhere() -> None:
    former = b"war" + b"ren"
    named = [
        str(path.relative_to(ROOT)) for path in _tracked() if former.decode() in str(path.relative_to(ROOT)).lower()
    ]
    held = [str(path.relative_to(ROOT)) for path in _tracked() if former in path.read_bytes().lower()]
    assert named + held == []


def _targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_each_target_that_a_page_names_is_there(page: str) -> None:
    assert set(re.findall(r"\bmake ([a-z-]+)(?=[ `\n]*(?:ARGS|`|#|\n))", (ROOT / page).read_text())) <= _targets()
