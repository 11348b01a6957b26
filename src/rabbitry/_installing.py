"""The command that installs a missing package, in the way in which Rabbitry was installed here."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_EXTRAS: Final = {name: name for name in ("broker", "crawl", "grading", "monitor", "web")} | {"up": "all"}
"""Subcommand → the extra that brings what it needs, if that is more than `cli`."""


def extra_of(command: str | None) -> str:
    """Return the extra that brings what a subcommand of `rabbitry` needs; None is the root command."""
    return _EXTRAS.get(command or "", "cli")


def missing(what: str, error: ModuleNotFoundError, extra: str) -> str:
    """Return a line that says that `what` needs the module that was not found, and how to install it."""
    return (
        f"{what} needs '{error.name}', which is not installed; "
        f"it comes with the extra '{extra}': {how_to_install(extra)}"
    )


def how_to_install(extra: str) -> str:
    """Return the command that installs Rabbitry with an extra into the environment that runs this program."""
    from importlib.metadata import PackageNotFoundError, distribution  # takes 1 MiB, and most programs need it never

    try:
        installed = distribution("rabbitry")
    except PackageNotFoundError:  # run from a folder of sources
        return f"install rabbitry[{extra}] for {sys.executable}"
    what = shlex.quote(_requirement(installed, extra))
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
    """Return where it was installed from (PEP 610); empty if that is a package index."""
    found: object = json.loads(installed.read_text("direct_url.json") or "{}")
    return found if isinstance(found, dict) else {}


def _requirement(installed: Distribution, extra: str) -> str:
    origin = _origin(installed)
    url = str(origin.get("url", ""))
    if not url:
        return f"rabbitry[{extra}]=={installed.version}"
    if "dir_info" in origin:
        from urllib.parse import unquote, urlsplit

        return f"{unquote(urlsplit(url).path)}[{extra}]"
    vcs = origin.get("vcs_info")
    if vcs:
        return f"rabbitry[{extra}] @ {vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return f"rabbitry[{extra}] @ {url}"
