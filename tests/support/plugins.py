"""Apps of strangers: distributions with an entry point, written into a folder that is put on the path."""

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
