"""Apps as plug-ins: found by their entry points, mounted, and named where one does not load."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rabbitry.cli
import rabbitry.web
from rabbitry.apps import Plugin, View
from rabbitry.apps.exceptions import PluginError
from rabbitry.apps.installed import RESERVED, installed
from rabbitry.cli._root import COMMANDS
from tests.support import commands
from tests.support.plugins import install

_OWN = {"crawl", "grading", "monitor", "workqueue"}
_GREETING = """
    import typer
    from rabbitry.apps import Plugin

    commands = typer.Typer()

    @commands.command()
    def hello(name: str = "world") -> None:
        print(f"hello {name}")

    @commands.command()
    def bye() -> None:
        import missing_package

    plugin = Plugin(name="greeting", title="Greets people.", commands="greeting_app:commands")
"""
_BROKEN = {
    "raises": ("raise ValueError('no such thing')", "ValueError: no such thing"),
    "exits": ("raise SystemExit('sorry')", "SystemExit: sorry"),
    "lacks": ("import missing_package", "ModuleNotFoundError: No module named 'missing_package'"),
    "other": ("plugin = 'text'", "'other_app:plugin' is a str, not a rabbitry.apps.Plugin"),
    "renamed": (
        "from rabbitry.apps import Plugin\nplugin = Plugin(name='x', title='X')",
        "its plug-in has the name 'x': rename the entry point to match",
    ),
    "broker": (
        "from rabbitry.apps import Plugin\nplugin = Plugin(name='broker', title='X')",
        "the name 'broker' is reserved: choose another",
    ),
    "monitor": (
        "from rabbitry.apps import Plugin\nplugin = Plugin(name='monitor', title='X')",
        f"rabbitry {rabbitry.__version__} already has an app of that name",
    ),
}


def _listed(more: dict[str, str]) -> dict[str, list[dict[str, object]]]:
    done = commands.run("apps", "--json", more=more)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, object]]] = {}
    for row in map(json.loads, done.stdout.splitlines()):
        found.setdefault(row["name"], []).append(row)
    return found


def test_the_built_in_apps_are_listed_and_load() -> None:
    found = _listed({})
    assert set(found) == _OWN
    assert all(rows[0]["troubles"] == [] for rows in found.values())
    assert all(rows[0]["source"] == f"rabbitry {rabbitry.__version__}" for rows in found.values())
    assert "Publish this machine's samples" in commands.run("apps").stdout


def test_a_third_party_app_adds_its_commands(tmp_path: Path) -> None:
    more = install(tmp_path, "greeting", _GREETING)
    assert re.search(r"^  greeting +Greets people\.$", commands.run("--help", more=more).stdout, re.MULTILINE)
    done = commands.run("greeting", "hello", "--name", "Ann", more=more)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello Ann\n", "")
    assert "Greets people." in commands.run("greeting", "--help", more=more).stdout
    assert _listed(more)["greeting"][0]["source"] == "greeting-app 1.0"
    done = commands.run("greeting", "bye", more=more)
    assert done.returncode == 1
    assert done.stderr == (
        "rabbitry: `rabbitry greeting` needs 'missing_package', which is not installed: "
        "greeting-app 1.0 does not bring it\n"
    )


def test_an_app_that_is_one_command_is_called_by_its_own_name(tmp_path: Path) -> None:
    code = _GREETING.replace("@commands.command()\n    def bye", "def bye")
    done = commands.run("greeting", "--name", "Ann", more=install(tmp_path, "greeting", code))
    assert (done.returncode, done.stdout) == (0, "hello Ann\n")


def test_broken_apps_are_reported_and_do_not_affect_others(tmp_path: Path) -> None:
    more: dict[str, str] = {}
    for name, (code, _) in _BROKEN.items():
        more = install(tmp_path, name, code)
    install(tmp_path, "greeting", _GREETING)
    found = _listed(more)
    overview = commands.run("--help", more=more)
    assert overview.returncode == 0
    for name, (_, reason) in _BROKEN.items():
        assert [row["troubles"] for row in found[name] if row["source"] == f"{name}-app 1.0"] == [[reason]]
        assert f"app '{name}' of {name}-app 1.0 does not load: {reason}\n" in overview.stderr
    assert all(name in overview.stdout for name in _OWN)
    done = commands.run("raises", more=more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rabbitry: app 'raises' of raises-app 1.0 does not load: ValueError: no such thing\n"
    assert commands.run("greeting", "hello", more=more).stdout == "hello world\n"
    assert commands.run("workqueue", "--help", more=more).returncode == 0


def test_an_app_whose_code_does_not_load_names_the_reference(tmp_path: Path) -> None:
    code = """
        from rabbitry.apps import Plugin

        plugin = Plugin(name="half", title="X", commands="half_app:nothing", services="no_such_module:services")
    """
    (row,) = _listed(install(tmp_path, "half", code))["half"]
    assert row["troubles"] == [
        "commands: module 'half_app' has no 'nothing'",
        "services: ModuleNotFoundError: No module named 'no_such_module'",
    ]


def test_an_unknown_command_is_refused_with_a_suggestion() -> None:
    done = commands.run("monitr")
    assert done.returncode == 2
    assert "No such command 'monitr'. Did you mean 'monitor'?" in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "A"}, "plug-in name 'A'"),
        ({"name": "../x"}, "plug-in name '../x'"),
        ({"name": "x", "router": "module"}, "'module': write module:attribute"),
        ({"name": "x", "views": (View(title="X", module="x.js"),)}, "no static folder"),
    ],
)
def test_a_malformed_plugin_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(PluginError, match=re.escape(words)):
        Plugin(**({"title": "X"} | given))  # type: ignore[arg-type] # wrong on purpose


def test_names_of_our_own_commands_are_reserved() -> None:
    assert set(COMMANDS) <= RESERVED


@pytest.mark.parametrize("arguments", [["--help"], ["broker", "--help"], ["version"]])
def test_a_command_imports_no_app(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom rabbitry.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    heavy = {"fastapi", "httpx", "psutil", "sqlalchemy", "rabbitry.amqp.client", "rabbitry.flow", "rich"}
    heavy |= {f"rabbitry.apps.{name}.commands" for name in installed().plugins}
    if arguments != ["--help"]:
        heavy |= {"importlib.metadata", *(f"rabbitry.apps.{name}" for name in installed().plugins)}
    assert heavy.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("package", [rabbitry.cli, rabbitry.web])
def test_commands_and_dashboard_name_no_app(package: object) -> None:
    words = re.compile(rf"\b({'|'.join(installed().plugins)})\b")
    (folder,) = map(Path, package.__path__)  # type: ignore[attr-defined] # packages have it
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".js") and "vendor" not in path.parts]
    assert files
    named = [
        f"{path.name}: {line.strip()}" for path in files for line in path.read_text().splitlines() if words.search(line)
    ]
    assert named == []


def test_commands_are_thin() -> None:
    source = Path(rabbitry.__file__).parent
    files = [*source.glob("cli/*.py"), *source.glob("apps/**/commands.py"), *source.glob("apps/**/commands/*.py")]
    long = [
        f"{path.relative_to(source)}: {node.name}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert files
    assert long == []
