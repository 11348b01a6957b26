"""The pytest plugin, which comes with the installation (entry point `pytest11`). docs/testing.md shows it.

pytest imports this module in every run, so it imports nothing of Rabbitry until a fixture is asked for.

During the run, what names no broker reaches none: neither the one of this machine nor the RABBITRY_BROKER of the
shell (`rabbitry.amqp.client.url.environment_url`). A test names its broker by the harness, a URL, or RABBITRY_BROKER.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from rabbitry.testing._broker import RunningBroker

_OUTSIDE: Final = "RABBITRY_OUTSIDE_BROKER"


class _NoBrokerByDefault:
    """The environment of one pytest run."""

    def __init__(self) -> None:
        self._outside = os.environ.get(_OUTSIDE)
        os.environ[_OUTSIDE] = os.environ.get("RABBITRY_BROKER", "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Take over what a worker process of pytest-xdist was given: its environment is that of tests already."""
        if hasattr(config, "workerinput") and self._outside is not None:
            os.environ[_OUTSIDE] = self._outside

    def pytest_unconfigure(self) -> None:
        """Leave the environment as it was, for a program or a test that runs pytest in itself."""
        if self._outside is None:
            os.environ.pop(_OUTSIDE, None)
        else:
            os.environ[_OUTSIDE] = self._outside


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Begin. This hook comes first: conftest files and other plugins may publish, or name the broker of the tests."""
    pluginmanager.register(_NoBrokerByDefault(), "rabbitry-environment")


@pytest.fixture
def rabbitry_broker() -> Iterator[RunningBroker]:
    """A running broker of this test's own, empty, on a free port of 127.0.0.1.

    It has `url`, `host`, `port` and `management_url`.
    """
    from rabbitry.testing._broker import RunningBroker

    with RunningBroker() as broker:
        yield broker
