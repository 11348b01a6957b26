"""Running another crawler's program in its environment."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PEERS: Final = ("Scrapy", "Crawlee")
_FOLDER: Final = Path(__file__).parent
_PYTHON: Final = _FOLDER.parent.parent / ".venv-crawl-peers/bin/python"
_DEADLINE: Final = 900.0


@dataclass(frozen=True)
class Run:
    """The results of one run. cpu: seconds (user and system) of all its processes."""

    pages: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Pages for each second of CPU."""
        return self.pages / self.cpu


def measure(name: str, url: str, count: int) -> Run:
    """Run a crawler from an address until it has fetched `count` pages. Raises RuntimeError if it does not."""
    done = subprocess.run(
        [_PYTHON, _FOLDER / f"peer_{name.lower()}.py", str(count), url],
        capture_output=True, text=True, timeout=_DEADLINE, check=False,
    )  # fmt: skip
    if done.returncode or not done.stdout.startswith("{"):
        raise RuntimeError(f"{name} did not fetch {count} pages: {done.stdout}{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[0]))
