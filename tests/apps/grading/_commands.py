"""Commands of `rabbitry grading` in tests: on which brokers they run, and what they give."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

ON_BOTH_BROKERS = pytest.mark.parametrize("more", ["embedded", "rabbitmq"], indirect=True)
"""Runs a test once on each broker, with the roles' records on PostgreSQL beside RabbitMQ."""


def records_of(more: dict[str, str]) -> str:
    """Return the URL of the roles' database."""
    return more.get("RABBITRY_DATABASE", f"sqlite:///{more['XDG_DATA_HOME']}/rabbitry/grading.sqlite3")


class Done(NamedTuple):
    """The exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]
