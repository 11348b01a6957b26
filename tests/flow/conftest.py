"""Fixtures for the tests of flow: stores, and limits of time that a busy machine does not reach."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker import _engine, _worker
from rabbitry.flow.worker._executors import processes, tasks, threads
from tests.support import programs, redis
from tests.support.embedded import BrokerProcess
from tests.support.harness import wait_longer
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ

_LONG: Final = 30.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the broker of a worker that stops, and of whoever reads dead letters, more time than a silent one gets."""
    monkeypatch.setattr(_worker, "_SETTLING", _LONG)
    monkeypatch.setattr(_worker, "_CANCELLING", _LONG)
    monkeypatch.setattr(_engine, "_CLOSE_PATIENCE", _LONG)
    monkeypatch.setattr(dead_letters, "_DONE_WAITING", _LONG)
    wait_longer(monkeypatch)


@pytest.fixture
def time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow generators that are told to end more time to do so than those get which never do."""
    monkeypatch.setattr(tasks, "_CANCELLING", _LONG)
    monkeypatch.setattr(threads, "_CANCELLING", _LONG)
    monkeypatch.setattr(processes, "_CLOSING", _LONG)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an empty file, which workers of a test write to."""
    path = tmp_path / "noted"
    path.touch()
    return path


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.faults)])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ | BrokerProcess]:
    """A broker of this test's own, to kill and to start again; the test runs once on each of the two."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
        return
    with BrokerProcess("--data", str(tmp_path / "broker")) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that the tests of flow share."""
    programs.require(redis.why_missing())
    with redis.running() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite3'}"
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        redis.empty(url)
        return f"{url}/0"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.create_database()
