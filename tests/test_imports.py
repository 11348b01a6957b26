"""Imports that the import contracts in pyproject.toml do not cover.

These are imports of a package by its own modules, and uses of private modules and names by other packages.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import rabbitry

_SOURCE = Path(rabbitry.__file__).parents[1]


def _name(path: Path, below: Path) -> str:
    parts = path.relative_to(below).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _taken(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Yield the full name of each module and name that a module imports, and each private attribute of a module."""
    local: dict[str, str] = {}
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            for alias in node.names:
                yield (full := f"{node.module}.{alias.name}")
                local[alias.asname or alias.name] = full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                if alias.asname:
                    local[alias.asname] = alias.name
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            words = ast.unparse(node).split(".")
            owner = ".".join([local.get(words[0], words[0]), *words[1:-1]])
            if owner in modules:
                yield f"{owner}.{words[-1]}"


def _owner(name: str) -> str | None:
    """Return the package or module that the first private part of a name belongs to; None for a public name."""
    words = name.split(".")
    for index, word in enumerate(words):
        if word.startswith("_") and not word.startswith("__"):
            return ".".join(words[:index])
    return None


def _foreign(below: Path) -> set[tuple[str, str]]:
    """Return who takes a private module or name that belongs to another package or module, and which."""
    paths = {_name(path, below): path for path in below.rglob("*.py")}
    found = set()
    for module, path in paths.items():
        for taken in _taken(ast.parse(path.read_text()), set(paths)):
            owner = _owner(taken)
            if owner in paths and module != owner and not module.startswith(f"{owner}."):
                found.add((module, taken))
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, those for type checkers included."""
    return grimp.build_graph("rabbitry", exclude_type_checking_imports=False, cache_dir=None)


def test_no_package_imports_a_module_of_its_own_that_imports_the_package(graph: grimp.ImportGraph) -> None:
    found = [
        f"{module} -> {package}"
        for module in graph.modules
        for package in graph.find_modules_directly_imported_by(module)
        if module.startswith(f"{package}.") and graph.chain_exists(importer=package, imported=module)
    ]
    assert sorted(found) == []


def test_private_names_are_used_only_in_their_own_package() -> None:
    assert sorted(_foreign(_SOURCE)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from p.a._deep import name",
        "from p.a import _deep",
        "from p.a import _deep as deep",
        "import p.a._deep",
        "if TYPE_CHECKING:\n    from p.a._deep import Name",
        "def later():\n    from p.a._deep import name",
        "from p.a.module import _name",
        "from p.a import module\nmodule._name()",
        "from p.a import module as other\nother._name = 1",
        "import p.a.module\np.a.module._name",
        "import p.a.module as other\nother._name",
        "import p\np.a.module._name",
    ],
)
def test_each_way_to_use_a_private_name_is_detected(tmp_path: Path, line: str) -> None:
    for name in ("p/__init__", "p/a/__init__", "p/a/_deep", "p/a/module", "p/b/__init__", "p/_shared"):
        (path := tmp_path / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from p._shared import thing\nfrom p.a.module import name\nself._own, __file__\n")
    (tmp_path / "p/a/inside.py").write_text("from p.a._deep import name\nfrom p.a import _deep\n_deep.name\n")
    assert _foreign(tmp_path) == set()
    (tmp_path / "p/b/outside.py").write_text(f"{line}\n")
    assert {module for module, _ in _foreign(tmp_path)} == {"p.b.outside"}
