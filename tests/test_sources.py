"""Each source has a test file of its name, or stands in sources.toml with the file that tests it, and why.

No function has more than 60 lines of code.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TESTS: Final = Path(__file__).parent
_SOURCE: Final = _TESTS.parent / "src" / "rabbitry"
_GROUPS: Final = tomllib.loads((_TESTS / "sources.toml").read_text())["group"]
_TESTED: Final = {source: test for group in _GROUPS for source, test in group["tested"].items()}

_LONGEST: Final = 60
"""Lines of a function without its parameters and docstring, which options of a public one make long."""


def _sources() -> set[str]:
    """Return the modules, `amqp/client/link` for example; an `__init__.py` is its package's list of public names."""
    paths = [path.relative_to(_SOURCE).with_suffix("") for path in _SOURCE.rglob("*.py") if path.stem != "__init__"]
    return {"/".join(part.lstrip("_") for part in path.parts) for path in paths}


def _own_test(source: str) -> Path:
    folder, _, name = source.rpartition("/")
    return _TESTS / folder / f"test_{name}.py"


def test_each_source_has_its_test_file_or_is_listed() -> None:
    missing = {source for source in _sources() if not _own_test(source).exists()}
    assert sorted(missing - _TESTED.keys()) == [], "write a test file of that name, or add them to tests/sources.toml"
    assert sorted(_TESTED.keys() - missing) == [], "these are gone or have a test file: remove them from the list"


def test_each_listed_test_file_is_there() -> None:
    assert sorted(test for test in {*_TESTED.values()} if not (_TESTS / f"{test}.py").exists()) == []


def test_no_source_is_listed_twice_and_each_group_has_a_reason() -> None:
    assert len(_TESTED) == sum(len(group["tested"]) for group in _GROUPS)
    assert all(group["why"] for group in _GROUPS)


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    assert [name for name, lines in _lengths() if lines > _LONGEST] == [], "split them where that helps the reader"


def _lengths() -> Iterator[tuple[str, int]]:
    """Yield each function with its lines of code."""
    for path in _SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1:2] or node.body if ast.get_docstring(node) is not None else node.body
                yield f"{path.relative_to(_SOURCE)}: {node.name}", (node.end_lineno or 0) - first[0].lineno + 1
