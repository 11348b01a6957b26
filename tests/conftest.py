"""Fixtures for all tests: the two brokers, programs that may be missing, and what a test leaves behind."""

import asyncio
import gc
import itertools
import logging
import os
import signal
import sys
from asyncio import constants
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import authorities, launcher, memory, postgresql, programs, rabbitmq, rabbitmq_lent, workers
from tests.support.launcher import Launcher
from tests.support.leaks import no_leaks_in_block
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.shared import Servers
from tests.support.workers import Workers

# How long an example takes, or its making, says nothing on a machine that does other things too.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in each run: what fails was broken by a change. New ones are looked for with the profile "search".
settings.register_profile("rabbitry", settings.get_profile("search"), derandomize=True)
settings.load_profile("rabbitry")

# asyncio's debug mode is on (pyproject.toml) for what it checks: calls from another thread, callbacks that are
# coroutines. It also records the stack of each future, task and callback, which is more than half of the CPU of all
# tests of the client and the broker; asyncio asks `get_debug` before it does so. PYTHONASYNCIODEBUG=1 brings them back.
if not os.environ.get("PYTHONASYNCIODEBUG"):
    asyncio.BaseEventLoop.get_debug = lambda self: False  # type: ignore[method-assign] # for the whole run
    # Of each coroutine it records ten frames, and reports them if it is never awaited: the one that made it is enough.
    constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc] # final, but read when a loop begins to run
# It also logs each callback that took 0.1 s, which on a busy machine any may take: commands would write it to stderr.
logging.getLogger("asyncio").addFilter(lambda record: record.msg != "Executing %s took %.3f seconds")

# Without the compiled modules each Python that a test starts compiles them again, which takes as long as running them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

authorities.share()

# What a shell starts in the background ignores Ctrl-C, and so would all programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_vhosts = itertools.count(1)
_free_vhosts: list[str] = []
"""Virtual hosts of this process on the shared RabbitMQ that are empty again."""
_data_folders = itertools.count(1)
_LONGEST_NAME = 40
# What waits or takes minutes comes first, so that none of it is still to be done when all else is. Short tests that
# only compute come last: they use both cores to the end.
_FIRST = [
    Path(__file__).parent / name
    for name in (
        "docs",
        "apps/crawl/test_whole.py",
        "browser",
        "differential",
        "web",
        "flow/wiring/test_replacing.py",
        "flow/wiring/test_delays.py",
        "flow/test_joining.py",
        "amqp/client/test_faults.py",
        "amqp/client/test_alarms.py",
        "flow/worker",
        "faults",
        "interop",
        "deploy",
        "cli",
        "apps/crawl",
        "apps",
        "flow",
        "amqp/client",
        "testing",
        "test_extras.py",
        "test_patterns.py",
        "test_dist.py",
        "broker",
    )
]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly:
        return  # one of the processes that share the tests; the first one has started what they share
    memory.use(config.add_cleanup)  # ends last
    launched = Launcher()
    config.add_cleanup(launched.close)
    config.add_cleanup(Servers().close)  # comes before the launcher's


@pytest.hookimpl(optionalhook=True)  # without xdist, all tests run in one process
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[workers.Spec]) -> None:
    shared = Workers([str(argument) for argument in config.invocation_params.args], config.invocation_params.dir)
    config.add_cleanup(shared.close)
    shared.fork(specs)
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:  # all tests: what they share starts meanwhile
        launcher.prepare()
        if rabbitmq.why_missing() is None:
            rabbitmq_lent.start_for_all()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = {item.path for item in items}
    places = {
        file: next((n for n, path in enumerate(_FIRST) if file.is_relative_to(path)), len(_FIRST)) for file in files
    }
    items.sort(key=lambda item: places[item.path])
    if config.option.collectonly:
        return
    if {"tests.support.commands", "tests.support.embedded", "tests.apps.monitor.program"} & sys.modules.keys():
        launcher.prepare()  # before the first test, which would take its socket for a leak


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()  # the tests and what they import stay: it would look through them again and again, here and later
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter by its bytes only where they are short and printable.

    A gzip file holds the time at which it was made: the processes that share the tests would disagree about its name.
    """
    if isinstance(val, bytes) and not (len(val) <= _LONGEST_NAME and val.isascii() and val.decode().isprintable()):
        return argname
    return None


@pytest.fixture(autouse=True)
def user_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what programs write into the user's data folder out of it, each test apart.

    Who writes there makes the folder: few of the tests have one.
    """
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / f"data-{next(_data_folders)}"))


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Undo what a command that ran in this process made of its log: later tests count events, and would find more."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def rabbitmq_server() -> RabbitMQ:
    """The RabbitMQ that all tests share, started by the first that asks; don't stop, kill or pause it."""
    programs.require(rabbitmq.why_missing())
    return rabbitmq_lent.for_all()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    """URL of an empty virtual host on RabbitMQ that is this test's own."""
    if _free_vhosts:
        name = _free_vhosts.pop()
        url = rabbitmq_server.url_of(name)
    else:
        name = f"test-{os.getpid()}-{next(_vhosts)}"
        url = rabbitmq_server.add_vhost(name)
    yield url
    if rabbitmq_server.empty_vhost(name):
        _free_vhosts.append(name)
    else:
        rabbitmq_server.delete_vhost(name)


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ of this test's own, as empty as a new one, to stop, kill, pause, configure and start again."""
    programs.require(rabbitmq.why_missing())
    with rabbitmq_lent.lent() as server:
        yield server


@pytest.fixture(scope="module")
def module_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ of this module's own, as empty as a new one, with the management API."""
    programs.require(rabbitmq.why_missing())
    with rabbitmq_lent.lent() as server:
        yield server


@pytest.fixture
def embedded_url() -> Iterator[str]:
    """URL of an embedded broker that is this test's own; it runs in a thread with a loop of its own."""
    from rabbitry.testing import RunningBroker

    with RunningBroker(debug=True) as broker:
        yield broker.url


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty virtual host; the test runs once on the embedded broker and once on RabbitMQ."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def chromium() -> Path:
    """The system's Chromium; the test is skipped, in strict mode failed, where there is none."""
    programs.require(programs.why_no_chromium())
    return programs.CHROMIUM


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails the test when it leaves asyncio tasks, threads or file descriptors behind.

    Name it first among the arguments, so that the other fixtures are closed before it looks.
    """
    launcher.prepare()  # else its socket were a leak of the first test that starts a program or a RabbitMQ
    async with no_leaks_in_block():
        yield


@pytest.fixture(scope="session")
def postgresql_server() -> PostgreSQL:
    """The PostgreSQL that all tests share, started by the first that asks."""
    programs.require(postgresql.why_missing())
    return postgresql.for_all()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.sqlite3'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.create_database()
