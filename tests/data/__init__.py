"""Data of the tests, the programs that make them, and how they are read."""

import json
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "rabbitmq_3_10_8"
AMQPLIB = Path(__file__).parent / "amqplib_1_0_2"
"""Conversations of py-amqplib, which speaks AMQP 0-8."""


@dataclass(frozen=True)
class Captured:
    """A recorded conversation; README.md tells how it was made."""

    name: str
    description: str
    client: bytes
    """All that the client sent, the protocol header first."""
    server: bytes
    """All that RabbitMQ sent."""
    turns: list[tuple[str, bytes]]
    """The same in the order in which it was said: ("client" or "server", bytes)."""


def names() -> list[str]:
    """The names of all recorded conversations."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load(name: str, folder: Path = _FOLDER) -> Captured:
    """Read one recorded conversation."""
    about = json.loads((folder / f"{name}.json").read_text())
    said = {side: (folder / f"{name}.{side}.bin").read_bytes() for side in ("client", "server")}
    at = {"client": 0, "server": 0}
    turns = []
    for side, size in about["turns"]:
        turns.append((side, said[side][at[side] : at[side] + size]))
        at[side] += size
    return Captured(name, about["description"], said["client"], said["server"], turns)
