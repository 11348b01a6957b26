"""Builds the peers that need it, and runs each in a child process."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Scenario = Literal["publish", "publish-one-by-one", "consume", "ping", "ping-confirmed", "through"]
C: Final = "librabbitmq (C)"

_FOLDER = Path(__file__).parent / "peers"
_DEADLINE = 600.0


@dataclass(frozen=True)
class Result:
    """The results of one run."""

    messages: int
    seconds: float
    per_second: int
    cpu_us: float
    """User and system time of the client per message, in microseconds."""
    p50_us: float = 0.0
    """For both pings: half of the messages came back within this, in microseconds."""
    p99_us: float = 0.0
    rss: tuple[int, ...] = ()
    """For "through": bytes of the client's memory, at equal distances."""


class Peers:
    """The peers that can run here. A context manager, which removes compiled programs at its end.

    `missing` has the reason for each that cannot run here.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitry-peers-")
        self._commands = {
            "rabbitry": [sys.executable, "-m", "benchmarks.peers.peer_rabbitry"],
            "pika": [sys.executable, "-m", "benchmarks.peers.peer_pika"],
            "aio-pika": [sys.executable, "-m", "benchmarks.peers.peer_aio_pika"],
        }
        self._compile()

    @property
    def names(self) -> list[str]:
        """The peers that can run here."""
        return list(self._commands)

    def run(
        self, peer: str, scenario: Scenario, url: str, queue: str, count: int, exchange: str = "", size: int = 200
    ) -> Result:
        """Measure one scenario with bodies of `size` bytes; the queue must exist, with `count` for "consume".

        `exchange`, instead of the default one, works only with the C client, and "through" only with Rabbitry's.

        Raises RuntimeError with the peer's error output if it fails.
        """
        arguments = [
            scenario,
            url,
            queue,
            str(count),
            "--size",
            str(size),
            *(["--exchange", exchange] if exchange else []),
        ]
        done = subprocess.run(
            [*self._commands[peer], *arguments], capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{peer} {scenario} ended with {done.returncode}:\n{done.stderr}")
        line = json.loads(done.stdout)
        return Result(
            line["messages"],
            line["seconds"],
            line["per_second"],
            line["cpu_us"],
            line.get("p50_us", 0.0),
            line.get("p99_us", 0.0),
            tuple(line.get("rss", ())),
        )

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _compile(self) -> None:
        program = Path(self._folder.name) / "peer_c"
        command = ["gcc", "-O2", "-Wall", "-o", str(program), str(_FOLDER / "peer_c.c"), "-lrabbitmq"]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            self.missing[C] = "gcc is not installed (as root: scripts/system-deps bench)"
        except subprocess.CalledProcessError as error:
            self.missing[C] = f"it does not compile (as root: scripts/system-deps bench):\n{error.stderr}"
        else:
            self._commands[C] = [str(program)]
