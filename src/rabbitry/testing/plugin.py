"""The pytest plugin, installed with the package (entry point `pytest11`). docs/testing.md describes it.

pytest imports this module in every run, so it imports nothing of Rabbitry until a test uses a fixture.

During the run, code that names no broker reaches none: neither that of this machine nor the shell's RABBITRY_BROKER
(`rabbitry.amqp.client.url.environment_url`). A test names its broker by the harness, a URL, or RABBITRY_BROKER.
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
    """Provide an empty, running broker for this test on a free port of 127.0.0.1.

    It has `url`, `host`, `port` and `management_url`.
    """
    from rabbitry.testing._broker import RunningBroker

    with RunningBroker() as broker:
        yield broker
