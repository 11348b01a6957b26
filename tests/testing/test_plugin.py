"""The pytest plugin as other projects get it: from the installation, in a pytest run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry.testing import RunningBroker, plugin

_TESTS = """
import socket

seen = set()


def test_it_runs(rabbitry_broker):
    seen.add(rabbitry_broker.port)
    with socket.create_connection((rabbitry_broker.host, rabbitry_broker.port)) as client:
        client.sendall(b"AMQP\\x00\\x00\\x09\\x01")
        assert client.recv(1) == b"\\x01"


def test_the_next_has_its_own(rabbitry_broker, request):
    (before,) = seen
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", before)) != 0 or before == rabbitry_broker.port
"""

_LAZY = """
import sys


def test_nothing_is_imported_before_a_test_asks(request):
    assert "rabbitry.testing.plugin" in sys.modules
    # pytest imports pdb, which imports asyncio from Python 3.14 on.
    heavy = ("rabbitry.broker",) if sys.version_info >= (3, 14) else ("rabbitry.broker", "asyncio.events")
    assert [name for name in sys.modules if name.startswith(heavy)] == []
    request.getfixturevalue("rabbitry_broker")
    assert "rabbitry.broker" in sys.modules
"""


_OTHERS = ("cacheprovider", "asyncio", "anyio", "hypothesispytest", "timeout")


def _pytest(folder: Path, *arguments: str, broker: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run pytest as from a shell. broker: the shell's RABBITRY_BROKER."""
    # The plugins of this project's own environment import asyncio and much more.
    others = [option for name in _OTHERS for option in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "-W", "error", *others, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITRY_", "PYTEST_"))}
    environment |= {"RABBITRY_BROKER": broker} if broker else {}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=90)


def test_the_fixture_is_there_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(_TESTS)
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_run_that_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_lazy.py").write_text(_LAZY)
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_plugin_lists_its_fixtures(tmp_path: Path) -> None:
    done = _pytest(tmp_path, "--fixtures")
    assert "rabbitry_broker" in done.stdout
    assert "running broker for this test" in done.stdout


_PUBLISHES = """
import os
import subprocess
import sys

import pytest
import rabbitry

app = rabbitry.App("shop")
app.output("out", queue="outs")


@app.stage("in", then="out")
async def handle(number: int) -> int:
    return number


def refused(how, *arguments, **keywords):
    with pytest.raises(rabbitry.UsageError, match="no broker is named.*harness"):
        how(*arguments, **keywords)


@pytest.fixture(scope="session", autouse=True)
def session():
    refused(rabbitry.connect_blocking)


refused(rabbitry.connect_blocking)  # while tests are collected


def test_nothing_is_sent_to_a_default_broker():
    refused(app.publish_blocking, 1, key="out")
    refused(rabbitry.connect)
    refused(rabbitry.connect_blocking)


def test_a_program_that_a_test_starts_uses_no_default_broker():
    program = [sys.executable, "-c", "import rabbitry; rabbitry.connect_blocking()"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no broker is named" in done.stderr, done.stderr


def test_a_broker_named_by_the_test_is_used(rabbitry_broker, monkeypatch):
    app.publish_blocking(1, key="out", url=rabbitry_broker.url)
    monkeypatch.setenv("RABBITRY_BROKER", rabbitry_broker.url)
    app.publish_blocking(2, key="out")
    subprocess.run([sys.executable, "-c", "import rabbitry; rabbitry.connect_blocking().close()"], check=True)
    with rabbitry.connect_blocking() as connection, connection.channel() as channel:
        assert channel.declare_queue("outs", passive=True).message_count == 2


def test_the_shells_broker_can_be_passed_on_purpose():
    if url := os.environ.get("RABBITRY_BROKER"):
        rabbitry.connect_blocking(url).close()
"""

_CONFTEST = """
import os

import pytest
import rabbitry

with pytest.raises(rabbitry.UsageError):
    rabbitry.connect_blocking()
"""


@pytest.mark.parametrize(("shell", "arguments"), [(True, ["-n", "1"]), (False, [])])
def test_a_test_that_names_no_broker_reaches_none(tmp_path: Path, shell: bool, arguments: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_publishes.py").write_text(_PUBLISHES)
    with RunningBroker() as broker:
        done = _pytest(tmp_path, *arguments, broker=broker.url if shell else None)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4 passed" in done.stdout
        assert list(broker._broker.vhosts["/"].queues) == []


def test_a_broker_named_by_conftest_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_connects.py").write_text(
        "import rabbitry\n\n\ndef test_connects():\n    rabbitry.connect_blocking().close()\n"
    )
    with RunningBroker() as broker:
        (tmp_path / "conftest.py").write_text(f"import os\n\nos.environ['RABBITRY_BROKER'] = {broker.url!r}\n")
        done = _pytest(tmp_path, "-n", "1")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_within_a_run_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "test_outer.py").write_text(
        "import os\nimport pytest\n\n\ndef test_outer(tmp_path, monkeypatch):\n"
        "    before = os.environ['RABBITRY_OUTSIDE_BROKER']\n"
        "    (tmp_path / 'test_inner.py').write_text('import rabbitry, pytest\\ndef test_inner():\\n'\n"
        "        '    with pytest.raises(rabbitry.UsageError): rabbitry.connect_blocking()\\n')\n"
        "    monkeypatch.setenv('RABBITRY_BROKER', 'amqp://127.0.0.1:1/')\n"
        "    assert pytest.main(['-p', 'no:cacheprovider', str(tmp_path)]) == 0\n"
        "    assert os.environ['RABBITRY_OUTSIDE_BROKER'] == before\n"
    )
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


_SCOPES = """
import pika

PORTS = set()


def _declare(broker, queue):
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        return connection.channel().queue_declare(queue).method.message_count


def test_one(rabbitry_broker_session, rabbitry_broker_module, rabbitry_broker):
    PORTS.update({rabbitry_broker_session.port, rabbitry_broker_module.port})
    assert len(PORTS | {rabbitry_broker.port}) == 3
    _declare(rabbitry_broker_session, "tasks")


def test_another(rabbitry_broker_session, rabbitry_broker_module):
    assert PORTS == {rabbitry_broker_session.port, rabbitry_broker_module.port}
    assert rabbitry_broker_session.queue("tasks").messages == []


def test_a_factory(rabbitry_broker_factory):
    one, two = rabbitry_broker_factory(), rabbitry_broker_factory(vhosts=["shop"], users={"ann": "s3cret"})
    assert one.port != two.port
    assert "ann:s3cret@" in two.url and two.url.endswith("/shop")
    _declare(two, "tasks")
"""


def test_there_is_a_broker_for_each_scope_and_a_factory(tmp_path: Path) -> None:
    (tmp_path / "test_scopes.py").write_text(_SCOPES)
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


_CONFIGURED = """
[pytest]
rabbitry_users =
    ann:s3cret:with colon
    bob:x
rabbitry_vhosts = another
rabbitry_definitions = broker/definitions.json
rabbitry_data = kept
rabbitry_compat = 3.10
"""

_USES_CONFIGURATION = """
import pika


def test_it(rabbitry_broker):
    assert "ann:s3cret%3Awith%20colon@" in rabbitry_broker.url and rabbitry_broker.url.endswith("/shop")
    assert rabbitry_broker.queue("paid", vhost="shop").messages == []
    assert rabbitry_broker.tls_url.startswith("amqps://ann:")
    assert rabbitry_broker.compat == "4.0"


def test_arguments_of_the_factory_come_first(rabbitry_broker_factory):
    settings = {"definitions": None, "tls": False, "data": None, "vhosts": ["/"], "compat": "3.10"}
    broker = rabbitry_broker_factory(users={"carl": "y"}, **settings)
    assert broker.url == f"amqp://carl:y@127.0.0.1:{broker.port}/"
    assert broker.compat == "3.10"
"""


def test_brokers_are_as_configuration_and_command_line_have_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(_CONFIGURED)
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker/definitions.json").write_text(
        '{"queues": [{"name": "paid", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {}}]}'
    )
    (tmp_path / "test_configured.py").write_text(_USES_CONFIGURATION)
    given = ("-o", "rabbitry_vhosts=shop\n/", "-o", "rabbitry_tls=true", "-o", "rabbitry_compat=4.0")
    done = _pytest(tmp_path, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert list((tmp_path / "kept").iterdir()) != []


class _Configured:
    """A project's configuration, as far as the plugin asks for it."""

    rootpath = Path()

    def __init__(self, **values: object) -> None:
        self._values = values

    def getini(self, name: str) -> object:
        return self._values.get(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rabbitry_users": ["ann:x", "bob"]}, "rabbitry_users: 'bob' has no password: write NAME:PASSWORD"),
        ({"rabbitry_users": [":x"]}, "rabbitry_users: a user has no name: write NAME:PASSWORD"),
        ({"rabbitry_port": "amqp"}, "rabbitry_port: 'amqp' is no port"),
        ({"rabbitry_compat": "4.9"}, "rabbitry_compat: '4.9' is unknown: write 3.10 or 4.0"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        plugin._settings(_Configured(**values))  # type: ignore[arg-type] # a part of a configuration
