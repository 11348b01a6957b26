"""The command that installs a missing package, in the way in which Rabbitry was installed here."""

import json
import shlex
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

EXTRA: Final = "all"
"""The extra that brings everything beyond the client, the broker and flow."""


def missing(what: str, error: ModuleNotFoundError) -> str:
    """Return a line that says that `what` needs the module that was not found, and how to install it."""
    return f"{what} needs '{error.name}', which is not installed; it comes with the extra '{EXTRA}': {how_to_install()}"


def how_to_install() -> str:
    """Return the command that installs Rabbitry with all extras into the environment that runs this program."""
    try:
        installed = distribution("rabbitry")
    except PackageNotFoundError:  # run from a folder of sources
        return f"install rabbitry[{EXTRA}] for {sys.executable}"
    what = shlex.quote(_requirement(installed))
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx install --force {what}"
    if (prefix / "uv-receipt.toml").exists():
        return f"uv tool install --force {what}"
    edited = "-e " if _origin(installed).get("dir_info", {}).get("editable") else ""
    python = shlex.quote(sys.executable)
    if (installed.read_text("INSTALLER") or "").strip() == "uv":
        return f"uv pip install --python {python} {edited}{what}"
    return f"{python} -m pip install {edited}{what}"


def _origin(installed: Distribution) -> dict[str, dict[str, object]]:
    """Return where it was installed from (PEP 610); nothing where it came from an index."""
    found: object = json.loads(installed.read_text("direct_url.json") or "{}")
    return found if isinstance(found, dict) else {}


def _requirement(installed: Distribution) -> str:
    origin = _origin(installed)
    url = str(origin.get("url", ""))
    if not url:
        return f"rabbitry[{EXTRA}]=={installed.version}"
    if "dir_info" in origin:
        from urllib.parse import unquote, urlsplit

        return f"{unquote(urlsplit(url).path)}[{EXTRA}]"
    vcs = origin.get("vcs_info")
    if vcs:
        return f"rabbitry[{EXTRA}] @ {vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return f"rabbitry[{EXTRA}] @ {url}"
