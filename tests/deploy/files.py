"""What `deploy/` holds, read: the services of compose.yaml, the Dockerfile's instructions, a copy with new secrets."""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    """Return compose.yaml with its anchors resolved."""
    read: dict[str, Any] = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())
    return read


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and what follows each, without comments, on one line."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = [line.partition(" ") for line in lines.replace("\\\n", " ").splitlines() if line]
    return [(name, rest.strip()) for name, _, rest in found]


def instruction(name: str) -> str:
    """What follows the last instruction of that name, which holds for the image."""
    return [rest for found, rest in dockerfile() if found == name][-1]


def copy_with_secrets(folder: Path) -> Path:
    """Copy `deploy/` and make its secrets as the documentation says."""
    deploy = folder / "deploy"
    shutil.copytree(DEPLOY, deploy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([deploy / "make-secrets"], capture_output=True, timeout=90, check=True)
    return deploy


def documented(command: str) -> list[list[str]]:
    """Return the words that follow `command` in each line of docs/deploy.md that begins with it."""
    text = (ROOT / "docs/deploy.md").read_text()
    return [shlex.split(rest) for rest in re.findall(rf"^{re.escape(command)} (.+)$", text, re.MULTILINE)]


@dataclass(frozen=True)
class Mount:
    """Something of the host that a container sees. volume: it is a named one, and holds nothing at first."""

    source: str
    target: str
    read_only: bool
    volume: bool


class Service:
    """A service of compose.yaml, as it stands in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self.fields: dict[str, Any] = compose()["services"][name]

    @property
    def command(self) -> list[str]:
        """The arguments of the image's entry point."""
        return [str(word) for word in self.fields["command"]]

    @property
    def hostname(self) -> str:
        """The name that its machine has for itself."""
        return str(self.fields.get("hostname", self.name.replace("_", "-")))

    @property
    def environment(self) -> dict[str, str]:
        """What it has in its environment: its files' lines, and before these what compose.yaml says itself."""
        found: dict[str, str] = {}
        for file in self.fields.get("env_file", []):
            lines = (self._folder / file).read_text().splitlines()
            found |= dict(line.split("=", 1) for line in lines)
        return found | {key: str(value) for key, value in self.fields.get("environment", {}).items()}

    @property
    def mounts(self) -> list[Mount]:
        """Its volumes and folders; sources of folders are absolute."""
        found = []
        for text in self.fields.get("volumes", []):
            source, target, *options = text.split(":")
            is_volume = not source.startswith(".")
            place = source if is_volume else str((self._folder / source).resolve())
            found.append(Mount(place, target, "ro" in options, is_volume))
        return found
