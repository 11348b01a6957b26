"""Each script sees the same on RabbitMQ 3.10.8 and on the embedded broker: replies, close codes, texts, messages."""

from typing import Final

import pytest

from tests.differential import (  # noqa: F401 - importing registers the scripts
    basic_cases,
    connection_cases,
    exchange_cases,
    publish_cases,
    queue_cases,
)
from tests.differential.peer import Peer
from tests.differential.registry import CASES

DIFFERENT: Final[dict[str, str]] = {}
"""Scripts that differ on purpose, with the reason."""


def _see(name: str, url: str) -> list[str]:
    with Peer(url) as peer:
        CASES[name](peer)
        return peer.log


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT])
def test_both_brokers_do_the_same(name: str, embedded_url: str, rabbitmq_url: str) -> None:
    expected = _see(name, rabbitmq_url)
    assert expected
    assert _see(name, embedded_url) == expected


def test_there_are_enough_scripts() -> None:
    assert len(CASES) >= 300
    assert set(DIFFERENT) <= set(CASES)
