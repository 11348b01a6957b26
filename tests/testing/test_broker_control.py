"""What a test does to its broker: settings, stop and start, faults, alarms, reset."""

import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import pika
import pika.exceptions
import pytest

import rabbitry
from rabbitry.exceptions import ConnectFailed, ConnectionClosed
from rabbitry.testing import RunningBroker
from tests.support.waiting import eventually_blocking


def _connect(url: str, **more: object) -> pika.BlockingConnection:
    parameters = pika.URLParameters(url)
    for name, value in more.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def test_users_and_virtual_hosts_are_as_configured() -> None:
    with RunningBroker(users={"ann": "s3cret"}, vhosts=["shop", "/"]) as broker:
        assert broker.url == f"amqp://ann:s3cret@127.0.0.1:{broker.port}/shop"
        _connect(broker.url).close()
        _connect(broker.url.replace("/shop", "/")).close()
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            _connect(f"amqp://guest:guest@127.0.0.1:{broker.port}/shop")


def test_definitions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with (
        pytest.raises(rabbitry.UsageError, match=f"^can't read the definitions in {path}: No such file or directory$"),
        RunningBroker(definitions=path),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"users": ["shop:s3cret"]}, "users must be a mapping of names to passwords, such as"),
        ({"users": {"shop": 1}}, "users must be a mapping of names to passwords, such as"),
        ({"vhosts": ["/", 1]}, "vhosts must be a list of names"),
        ({"definitions": []}, "definitions must be a file or a mapping, not list"),
        ({"data": 5}, "data must be a folder, not int"),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(rabbitry.UsageError, match=words):
        RunningBroker(**settings)  # type: ignore[arg-type] # the mistakes that are tested


def test_a_port_can_be_chosen() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with RunningBroker(port=port) as broker:
        assert broker.port == port
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1 port {port}: "), RunningBroker(port=port):
            pass
        _connect(broker.url).close()


_QUEUE = {"name": "paid", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {"x-max-length": 5}}
_EXCHANGE = {"name": "orders", "vhost": "/", "type": "topic", "durable": True, "auto_delete": False, "internal": False}
_BINDING = {"source": "orders", "vhost": "/", "destination": "paid", "destination_type": "queue"}
_DEFINITIONS = {
    "vhosts": [{"name": "/"}, {"name": "bills"}],
    "exchanges": [_EXCHANGE | {"arguments": {}}],
    "queues": [_QUEUE],
    "bindings": [_BINDING | {"routing_key": "order.*", "arguments": {}}],
}


@pytest.mark.parametrize("kind", ["mapping", "file"])
def test_definitions_are_there_at_the_start_and_after_a_reset(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(_DEFINITIONS))
    with RunningBroker(definitions=_DEFINITIONS if kind == "mapping" else path) as broker:
        for _ in range(2):
            with _connect(broker.url) as connection:
                connection.channel().basic_publish("orders", "order.new", b"1")
                broker.queue("paid").wait()
            broker.reset()
            assert broker.queue("paid").messages == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't import .*definitions.json"),
        ('{"queues": [{"name": 1, "vhost": "/"}]}', "can't import .*name must be a string"),
    ],
)
def test_wrong_definitions_are_named_and_leave_nothing(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "definitions.json"
    path.write_text(content)
    before = threading.active_count()
    with pytest.raises(rabbitry.UsageError, match=message), RunningBroker(definitions=path):
        pass
    eventually_blocking(lambda: threading.active_count() <= before, "the broker's thread is gone")


async def test_tls_has_a_certificate_that_its_own_clients_trust() -> None:
    with RunningBroker(tls=True) as broker:
        async with rabbitry.connect(broker.tls_url, ssl=broker.client_context) as connection:
            await connection.channel()
        context = ssl.create_default_context(cafile=str(broker.ca_file))
        parameters = pika.URLParameters(broker.tls_url)
        parameters.ssl_options = pika.SSLOptions(context, "localhost")
        pika.BlockingConnection(parameters).close()
        with pytest.raises(ConnectFailed, match="certificate"):
            async with rabbitry.connect(broker.tls_url, connect_attempts=1):
                pass
        before = broker.tls_url
        broker.restart()
        assert broker.tls_url == before
        _connect(broker.url).close()
    assert not broker.ca_file.exists()


def test_without_tls_its_url_explains_how_to_enable_it() -> None:
    with RunningBroker() as broker, pytest.raises(rabbitry.UsageError, match="tls=True"):
        _ = broker.tls_url


# -- stop and start ----------------------------------------------------------------------------------------


def _fill(url: str) -> None:
    with _connect(url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("orders", "topic", durable=True)
        channel.exchange_declare("passing", "fanout")
        channel.queue_declare("kept", durable=True, arguments={"x-max-priority": 3})
        channel.queue_declare("voted", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare("passing")
        channel.queue_bind("kept", "orders", "order.#")
        channel.queue_bind("voted", "orders", "order.#")
        channel.queue_bind("kept", "passing", "")
        for number, mode in enumerate((2, 1, 2)):
            properties = pika.BasicProperties(delivery_mode=mode, priority=number, headers={"n": number})
            channel.basic_publish("orders", "order.new", b"%d" % number, properties)
        channel.basic_publish("", "passing", b"x", pika.BasicProperties(delivery_mode=2))


@pytest.mark.parametrize("stored", [False, True])
def test_a_restart_keeps_durable_objects(tmp_path: Path, stored: bool) -> None:
    with RunningBroker(data=tmp_path / "data" if stored else None) as broker:
        _fill(broker.url)
        url = broker.url
        for _ in range(2):
            broker.restart()
            assert broker.url == url
            assert [message.body for message in broker.queue("kept").wait(2)] == [b"2", b"0"]
            assert [message.body for message in broker.queue("voted").wait(2)] == [b"0", b"1", b"2"]
            assert broker.queue("kept").messages[0].properties.headers == {"n": 2}
            with pytest.raises(rabbitry.UsageError, match="no queue 'passing'"):
                _ = broker.queue("passing").messages
        with _connect(url) as connection:
            channel = connection.channel()
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
                channel.exchange_declare("passing", passive=True)
            channel = connection.channel()
            channel.basic_publish("orders", "order.late", b"3", pika.BasicProperties(delivery_mode=2))
            assert [message.body for message in broker.queue("voted").wait(4)][-1] == b"3"


def test_a_consumers_unsettled_messages_are_redelivered() -> None:
    with RunningBroker() as broker:
        channel = _connect(broker.url).channel()
        channel.queue_declare("tasks", durable=True)
        channel.basic_publish("", "tasks", b"1", pika.BasicProperties(delivery_mode=2))
        assert channel.basic_get("tasks")[2] == b"1"
        broker.restart()
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="320"):
            channel.basic_get("tasks")
        with _connect(broker.url) as connection:
            method, _, body = connection.channel().basic_get("tasks")
        assert (method.redelivered, body) == (True, b"1")


async def test_a_restart_loses_none_of_the_messages_that_are_on_their_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._shares._SECONDS", 0.0)  # one step in each turn of the loop
    monkeypatch.setattr("rabbitry.broker._channel._STEP", 1)
    monkeypatch.setattr("rabbitry.testing._broker._CLOSE_TIMEOUT", 0.0)
    many = 300
    with RunningBroker() as broker:
        async with rabbitry.connect(broker.url, recover=False) as connection:
            channel = await connection.channel(prefetch=0)
            await channel.declare_queue("tasks", durable=True)
            for _ in range(many):
                await channel.send(b"", routing_key="tasks")
            await channel.wait_for_confirms()
            async with channel.consume("tasks") as deliveries:
                for _ in range(many):
                    await anext(deliveries)
                broker.restart()  # this loop stands still, so that the client does not answer
                assert broker.depths() == {"tasks": many}
                messages = broker.queue("tasks").messages
                assert len(messages) == many
                with pytest.raises(ConnectionClosed, match="320"):
                    await anext(deliveries)


def test_a_stopped_broker_refuses_connections_until_it_is_started() -> None:
    with RunningBroker() as broker:
        broker.stop()
        for _ in range(2):
            with socket.socket() as probe:
                assert probe.connect_ex((broker.host, broker.port)) != 0
        for wrong in (broker.stop, broker.depths, lambda: broker.queue("x").messages, lambda: broker.management_url):
            with pytest.raises(rabbitry.UsageError, match="stopped: call start"):
                wrong()
        broker.start()
        _connect(broker.url).close()
        with pytest.raises(rabbitry.UsageError, match="runs already"):
            broker.start()


def test_the_ports_of_a_stopped_broker_are_reserved() -> None:
    with RunningBroker(tls=True) as broker:
        urls = (broker.url, broker.tls_url, broker.management_url)
        broker.stop()
        for url in urls:
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((broker.host, urlsplit(url).port))
        broker.start()
        assert (broker.url, broker.tls_url, broker.management_url) == urls
        _connect(broker.url).close()


@pytest.mark.parametrize("stored", [False, True])
def test_messages_that_expire_over_a_restart_become_dead_letters(tmp_path: Path, stored: bool) -> None:
    with RunningBroker(data=tmp_path / "data" if stored else None) as broker:
        with _connect(broker.url) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("dead", durable=True)
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
            channel.queue_declare("tasks", durable=True, arguments=dead)
            channel.basic_publish("", "tasks", b"1", pika.BasicProperties(delivery_mode=2, expiration="300"))
        broker.restart()
        assert [message.body for message in broker.queue("dead").wait(timeout=60)] == [b"1"]
        assert broker.depths() == {"dead": 1, "tasks": 0}


def test_other_threads_see_a_broker_before_or_after_its_restart() -> None:
    with RunningBroker() as broker:
        with _connect(broker.url) as connection:
            connection.channel().queue_declare("tasks", durable=True)

        def restart_and_look(_: int) -> list[dict[str, int]]:
            seen = []
            for _ in range(5):
                broker.restart()
                seen.append(broker.depths())
            return seen

        with ThreadPoolExecutor(4) as threads:
            seen = list(threads.map(restart_and_look, range(4)))
        assert seen == [[{"tasks": 0}] * 5] * 4
        _connect(broker.url).close()


def test_a_broker_is_entered_once_and_used_within_its_block() -> None:
    broker = RunningBroker()
    for use in (broker.depths, broker.stop, broker.start, broker.reset):
        with pytest.raises(rabbitry.UsageError, match="not entered yet: use it within its block"):
            use()
    with broker, pytest.raises(rabbitry.UsageError, match="entered once"), broker:
        pass
    for use in (broker.depths, broker.stop, broker.start, broker.reset):
        with pytest.raises(rabbitry.UsageError, match="has ended: use it within its block"):
            use()


def test_the_end_of_the_block_is_the_end_of_a_stopped_broker_too() -> None:
    with RunningBroker() as broker:
        broker.stop()
    with pytest.raises(rabbitry.UsageError, match="within its block"):
        broker.start()


def test_the_management_api_has_its_port_again_after_a_restart() -> None:
    with RunningBroker() as broker:
        url = broker.management_url
        broker.restart()
        found = httpx.get(f"{url}api/overview", auth=("guest", "guest"), timeout=90).json()
        assert found["product_name"] == "RabbitMQ"
        assert broker.management_url == url


async def test_a_client_that_recovers_goes_on_after_a_restart() -> None:
    with RunningBroker() as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("tasks", durable=True)
            broker.restart()
            await channel.publish(b"1", routing_key="tasks", timeout=60)
            assert [message.body for message in broker.queue("tasks").messages] == [b"1"]


# -- reset -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_a_reset_leaves_nothing(tmp_path: Path, stored: bool) -> None:
    with RunningBroker(data=tmp_path / "data" if stored else None) as broker:
        _fill(broker.url)
        httpx.put(
            f"{broker.management_url}api/users/ann", auth=("guest", "guest"), json={"password": "x", "tags": ""}
        ).raise_for_status()
        broker.reset()
        for _ in range(2):
            found = httpx.get(f"{broker.management_url}api/definitions", auth=("guest", "guest")).json()
            assert [found[name] for name in ("queues", "exchanges", "bindings")] == [[], [], []]
            assert [user["name"] for user in found["users"]] == ["guest"]
            broker.restart()
        with pytest.raises(AssertionError, match="nothing was published"):
            broker.assert_published(timeout=0)


def test_a_reset_of_a_stopped_broker_empties_its_folder(tmp_path: Path) -> None:
    with RunningBroker(data=tmp_path) as broker:
        _fill(broker.url)
        broker.stop()
        broker.reset()
        assert broker.depths() == {}
        broker.restart()
        assert broker.depths() == {}


# -- faults ------------------------------------------------------------------------------------------------


async def test_connections_are_dropped_by_name() -> None:
    with RunningBroker() as broker:
        async with (
            rabbitry.connect(broker.url, name="one", recover=False) as one,
            rabbitry.connect(broker.url, name="two", recover=False) as two,
        ):
            assert broker.drop_connections("nobody") == 0
            assert broker.drop_connections("one") == 1
            with pytest.raises(ConnectionClosed):
                await one.channel()
            await two.channel()
            assert broker.drop_connections() == 1


def test_an_alarm_holds_over_a_restart_and_is_not_called_over_before_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rabbitry.broker._alarms._PERIOD_OF_ALARMS", 0.001)
    with RunningBroker() as broker, caplog.at_level("WARNING", "rabbitry.broker"):
        with broker.alarm("memory"):
            broker.restart()
            found = httpx.get(
                f"{broker.management_url}api/health/checks/alarms", auth=("guest", "guest"), timeout=60
            )  # the broker has looked at its memory many times until it answers
            assert found.status_code == 503
        assert [record for record in caplog.records if "memory" in record.message] == []
        with _connect(broker.url) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("tasks")
            channel.basic_publish("", "tasks", b"1")


def test_an_alarm_blocks_publishers_until_it_is_over() -> None:
    with RunningBroker() as broker, _connect(broker.url, blocked_connection_timeout=60) as connection:
        channel = connection.channel()
        channel.queue_declare("tasks")
        told: list[str] = []
        connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda _, frame: told.append("over"))
        whats: tuple[Literal["memory", "disk"], ...] = ("memory", "disk")
        for what in whats:
            told.clear()
            with broker.alarm(what):
                channel.basic_publish("", "tasks", b"1")
                while not told:
                    connection.process_data_events(0.1)
                assert told == [f"low on {what}"]
            while told[-1:] != ["over"]:
                connection.process_data_events(0.1)
        assert len(broker.queue("tasks").wait(2)) == 2
        with pytest.raises(rabbitry.UsageError, match="no alarm is called 'cpu'"), broker.alarm("cpu"):  # type: ignore[arg-type] # that is the test
            pass


def test_an_alarm_lasts_for_its_block_when_one_in_it_ends() -> None:
    with RunningBroker() as broker, _connect(broker.url, blocked_connection_timeout=60) as connection:
        told: list[str] = []
        connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
        with broker.alarm():
            with broker.alarm():
                pass
            connection.channel().basic_publish("", "nowhere", b"1")
            while not told:
                connection.process_data_events(0.1)
        with rabbitry.connect_blocking(broker.url) as client:
            channel = client.channel()
            channel.declare_queue("tasks")
            for _ in range(2):  # the first one would be taken in an alarm as well
                channel.publish(b"1", routing_key="tasks", timeout=60)
