"""Apps of strangers: distributions with an entry point, written into a folder that is put on the path."""

import tomllib
from pathlib import Path
from textwrap import dedent


def install(folder: Path, name: str, code: str, *, attribute: str = "plugin", version: str = "1.0") -> dict[str, str]:
    """Install an app of one module as a distribution of its own.

    Args:
        folder: Where it is written; several apps may share one.
        name: The app's name. Distribution and module are called after it.
        code: The module's text.
        attribute: The name of the plug-in in the module.
        version: The version of the distribution.

    Returns:
        The environment in which it is found.
    """
    module = f"{name.replace('-', '_')}_app"
    (folder / f"{module}.py").write_text(dedent(code))
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-app\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[rabbitry.apps]\n{name} = {module}:{attribute}\n")
    return {"PYTHONPATH": str(folder)}


def install_example(folder: Path, example: Path) -> dict[str, str]:
    """Make an app of examples/ known, as its installation would: by the entry points of its pyproject.toml.

    Args:
        folder: Where its metadata are written.
        example: The folder with its pyproject.toml.

    Returns:
        The environment in which it is found.
    """
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in project["entry-points"]["rabbitry.apps"].items()]
    (about / "entry_points.txt").write_text("\n".join(["[rabbitry.apps]", *lines, ""]))
    return {"PYTHONPATH": f"{folder}:{example}"}
