"""The pytest plugin, installed with the package (entry point `pytest11`). docs/testing.md describes it.

pytest imports this module in every run, so it imports nothing of Rabbitry until a test uses a fixture.

During the run, code that names no broker reaches none: neither that of this machine nor the shell's RABBITRY_BROKER
(`rabbitry.amqp.client.url.environment_url`). A test names its broker by the harness, a URL, or RABBITRY_BROKER.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Literal

import pytest

if TYPE_CHECKING:
    from typing import Unpack

    from rabbitry.testing._broker import RunningBroker, Settings

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


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Hide the default broker before conftest files and other plugins publish or name the tests' broker."""
    pluginmanager.register(_NoBrokerByDefault(), "rabbitry-environment")
    for name, kind, text in _SETTINGS:
        parser.addini(f"rabbitry_{name}", text, kind, default=None)


_SETTINGS: Final[tuple[tuple[str, Literal["string", "linelist", "bool"], str], ...]] = (
    ("users", "linelist", "administrators of the fixtures' brokers, a line NAME:PASSWORD each; else guest:guest"),
    ("vhosts", "linelist", "virtual hosts of the fixtures' brokers, one in each line; else /"),
    ("definitions", "string", "a file of RabbitMQ's definitions that the fixtures' brokers declare at their start"),
    ("tls", "bool", "whether the fixtures' brokers listen for TLS too"),
    ("port", "string", "the AMQP port of the fixtures' brokers, of which one can run at a time then; else a free one"),
    ("compat", "string", "the release of RabbitMQ whose behaviour the fixtures' brokers have: 3.10 or 4.0; else 3.10"),
    ("data", "string", "a folder in which the fixtures' brokers keep what is durable; else all is in memory"),
)


def _settings(config: pytest.Config) -> Settings:
    """Return the arguments of RunningBroker that the project's configuration has. Raises pytest.UsageError."""
    settings: Settings = {}
    if users := config.getini("rabbitry_users"):
        if wrong := [line for line in users if not line.partition(":")[0] or ":" not in line]:
            name = wrong[0].partition(":")[0]
            why = f"{name!r} has no password" if name else "a user has no name"
            raise pytest.UsageError(f"rabbitry_users: {why}: write NAME:PASSWORD in each line")
        settings["users"] = dict(line.split(":", 1) for line in users)
    if vhosts := config.getini("rabbitry_vhosts"):
        settings["vhosts"] = vhosts
    if definitions := config.getini("rabbitry_definitions"):
        settings["definitions"] = config.rootpath / definitions
    if config.getini("rabbitry_tls"):
        settings["tls"] = True
    if port := config.getini("rabbitry_port"):
        if not port.isdecimal():
            raise pytest.UsageError(f"rabbitry_port: {port!r} is no port: write a number from 0 to 65535")
        settings["port"] = int(port)
    if compat := config.getini("rabbitry_compat"):
        from rabbitry.broker.compat import RELEASES

        if compat not in RELEASES:
            raise pytest.UsageError(f"rabbitry_compat: {compat!r} is unknown: write {' or '.join(RELEASES)}")
        settings["compat"] = compat
    if data := config.getini("rabbitry_data"):
        settings["data"] = config.rootpath / data
    return settings


def _broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    from rabbitry.testing._broker import RunningBroker

    with RunningBroker(**_settings(request.config)) as broker:
        yield broker


@pytest.fixture
def rabbitry_broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Provide an empty, running broker for this test on a free port of 127.0.0.1.

    It has `url`, `host`, `port`, `management_url` and what docs/testing.md shows.
    """
    yield from _broker(request)


@pytest.fixture(scope="module")
def rabbitry_broker_module(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Provide a running broker that the tests of one module share; `reset()` empties it."""
    yield from _broker(request)


@pytest.fixture(scope="session")
def rabbitry_broker_session(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Provide a running broker that all tests of this process share; `reset()` empties it."""
    yield from _broker(request)


@pytest.fixture
def rabbitry_broker_factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., RunningBroker]]:
    """Provide a function that starts brokers; its arguments are RunningBroker's, in place of the configured ones."""
    from rabbitry.testing._broker import RunningBroker

    settings = _settings(request.config)
    with ExitStack() as stack:

        def make(**more: Unpack[Settings]) -> RunningBroker:
            return stack.enter_context(RunningBroker(**(settings | more)))

        yield make
