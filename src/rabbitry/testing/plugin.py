"""The pytest plugin, which comes with the installation (entry point `pytest11`). docs/testing.md shows it.

pytest imports this module in every run, so it imports nothing of Rabbitry until a fixture is asked for.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rabbitry.testing.broker import RunningBroker


@pytest.fixture
def rabbitry_broker() -> "Iterator[RunningBroker]":
    """A running broker of this test's own, empty, on a free port of 127.0.0.1.

    It has `url`, `host`, `port` and `management_url`.
    """
    from rabbitry.testing.broker import RunningBroker

    with RunningBroker() as broker:
        yield broker
