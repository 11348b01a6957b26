"""`rabbitry doctor`: what stands still on a broker, and what does not fit."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pika
import pytest
import trustme

import rabbitry
from rabbitry.apps.queue_checks import Look, problems
from rabbitry.broker import Broker, BrokerConfig
from tests.support import commands
from tests.support.plugins import install
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually_blocking


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A broker with its management API, as the environment's variables."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        assert server.management_url is not None
        yield {"RABBITRY_BROKER": server.url, "RABBITRY_MANAGEMENT": server.management_url}
        return
    from rabbitry.testing import RunningBroker

    with RunningBroker() as running:
        yield {"RABBITRY_BROKER": running.url, "RABBITRY_MANAGEMENT": running.management_url}


def _doctor(more: dict[str, str], *arguments: str, cwd: Path | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    page = f"http://127.0.0.1:{free_port()}/"
    done = commands.run("doctor", "--json", "--page", page, "--seconds", "2", *arguments, more=more, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done.returncode, {found["check"]: found for found in map(json.loads, done.stdout.splitlines())}


def _are_counted(broker: dict[str, str]) -> bool:
    """Whether the management API, which is some seconds late, shows what the test has done."""
    url = broker["RABBITRY_MANAGEMENT"].rstrip("/")
    listed = httpx.get(f"{url}/api/queues/%2F", auth=("guest", "guest"), timeout=60).json()
    found = {queue["name"]: queue for queue in listed}
    consumers = httpx.get(f"{url}/api/consumers/%2F", auth=("guest", "guest"), timeout=60).json()
    return (
        found["stuck"].get("messages_unacknowledged") == 2
        and found["forgotten"].get("messages_ready") == 1
        and bool(consumers)
    )


def test_a_consumer_without_prefetch_that_acknowledges_nothing_is_found(broker: dict[str, str]) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker["RABBITRY_BROKER"])) as connection:
        channel = connection.channel()
        channel.queue_declare("stuck", durable=True)
        channel.queue_declare("forgotten", durable=True)
        for name in ("stuck", "stuck", "forgotten"):
            channel.basic_publish("", name, b"x")
        channel.basic_consume("stuck", lambda *_: None, consumer_tag="hoarder")

        def are_shown() -> bool:
            connection.process_data_events(time_limit=0.1)
            return _are_counted(broker)

        eventually_blocking(are_shown, "the management API shows the messages")
        code, found = _doctor(broker)
    assert code == 1
    assert found["queue stuck"]["verdict"] == "bad"
    assert "consumer 'hoarder' has no prefetch limit and holds all 2 messages" in found["queue stuck"]["what"]
    assert found["queue forgotten"]["verdict"] == "note"
    assert "it has no consumer" in found["queue forgotten"]["what"]


def test_a_work_queue_consumer_reports_that_another_holds_all(broker: dict[str, str]) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker["RABBITRY_BROKER"])) as connection:
        channel = connection.channel()
        channel.queue_declare("work", durable=True)
        channel.basic_publish("", "work", b"0")
        channel.basic_consume("work", lambda *_: None, consumer_tag="hoarder")
        connection.process_data_events(time_limit=0.5)
        with commands.service("workqueue", "consume", "--queue", "work", more=broker) as service:
            service.wait_for("consumer 'hoarder' has no prefetch limit and holds all 1 message")


def test_an_exchange_of_another_type_is_found(broker: dict[str, str]) -> None:
    with rabbitry.connect_blocking(broker["RABBITRY_BROKER"]) as connection, connection.channel() as channel:
        channel.declare_exchange("system_info", "topic", durable=True)
        code, found = _doctor(broker)
        channel.delete_exchange("system_info")
    assert code == 1
    assert found["exchange system_info"]["verdict"] == "bad"
    assert "another type than fanout" in found["exchange system_info"]["what"]


def test_the_broker_is_read_from_the_env_file(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / ".env").write_text(f"RABBITMQ_HOST=127.0.0.1\nRABBITMQ_PORT={port}\n")
    code, found = _doctor({"RABBITRY_BROKER": ""}, cwd=tmp_path)
    assert code == 3
    assert f"127.0.0.1:{port}" in found["broker"]["what"]


def test_amqps_on_a_plain_port_is_found(broker: dict[str, str]) -> None:
    code, found = _doctor({"RABBITRY_BROKER": broker["RABBITRY_BROKER"].replace("amqp://", "amqps://")})
    assert code == 3
    assert "speaks AMQP without TLS" in found["broker"]["what"]


async def test_amqp_on_a_tls_port_is_found() -> None:
    import asyncio

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with Broker(BrokerConfig(port=0, tls=context, tls_port=0)) as running:
        url = f"amqp://guest:guest@127.0.0.1:{running.tls_port}/"
        code, found = await asyncio.to_thread(_doctor, {"RABBITRY_BROKER": url})
    assert code == 3
    assert "speaks TLS" in found["broker"]["what"]


@pytest.mark.parametrize(
    ("raised", "is_told_of"), [("ValueError('ill')", True), ("ConnectionClosed(0, 'gone')", False)]
)
def test_failing_checks_are_named_but_not_blamed_for_a_lost_connection(
    embedded_url: str, tmp_path: Path, raised: str, is_told_of: bool
) -> None:
    code = f"""
        from rabbitry.apps import Checks, Plugin
        from rabbitry.exceptions import ConnectionClosed

        async def connected(connection, seconds):
            raise {raised}
            yield

        checks = Checks(connected=connected)
        plugin = Plugin(name="sick", title="Is ill.", checks="sick_app:checks")
    """
    exit_code, found = _doctor(install(tmp_path, "sick", code) | {"RABBITRY_BROKER": embedded_url}, "--seconds", "0")
    assert exit_code == 1
    assert ("app sick" in found) == is_told_of
    if is_told_of:
        assert found["app sick"]["what"] == "its checks failed: ValueError: ill"
        assert "page" in found, "the other checks go on"


def _look(at: float, **queue: object) -> Look:
    return Look(at, {"q": queue}, {})


def test_a_growing_queue_without_consumers_is_bad() -> None:
    (problem,) = problems(_look(0, messages_ready=5, consumers=0), _look(6, messages_ready=8, consumers=0))
    assert (problem.is_bad, problem.what) == (True, "it has no consumer and grows: 8 ready, 3 more in 6 s")


def test_unacknowledged_messages_are_stuck_if_none_is_acknowledged() -> None:
    held = {"messages_unacknowledged": 4, "messages_ready": 9, "consumers": 1}
    (problem,) = problems(_look(0, **held, message_stats={"ack": 7}), _look(6, **held, message_stats={"ack": 7}))
    assert (problem.is_bad, problem.what) == (
        True,
        "its consumers hold 4 messages unacknowledged, and acknowledged none in 6 s",
    )
    assert problems(_look(0, **held, message_stats={"ack": 7}), _look(6, **held, message_stats={"ack": 8})) == []


def test_queues_that_empty_themselves_are_left_alone() -> None:
    waiting = {"messages_ready": 3, "arguments": {"x-message-ttl": 1000, "x-dead-letter-exchange": ""}}
    assert problems(_look(0, **waiting), _look(6, **waiting)) == []


def test_queues_that_hold_tokens_and_streams_are_left_alone() -> None:
    def look(at: float, ready: int) -> Look:
        token: dict[str, object] = {
            "messages_ready": ready, "messages_unacknowledged": 1,
            "arguments": {"x-single-active-consumer": True, "x-expires": 1000},
        }  # fmt: skip
        tokens: dict[str, object] = {"messages_ready": ready, "arguments": {"x-expires": 1000}}
        stream: dict[str, object] = {"messages_ready": ready, "arguments": {"x-queue-type": "stream"}}
        queues = {f"shop.{kind}.ask": token for kind in ("schedule", "rate", "slot")}
        return Look(at, queues | {"shop.tokens.ask": tokens, "log": stream}, {})

    assert problems(look(0, 1), look(6, 3)) == []


def test_a_stage_that_is_paused_is_no_problem() -> None:
    def look(at: float, ready: int) -> Look:
        paused: dict[str, object] = {"messages": 1, "arguments": {"x-rabbitry-queue": "orders"}}
        waiting: dict[str, object] = {"messages": ready, "messages_ready": ready, "consumers": 0}
        queues = {"shop.paused.take": paused, "orders": waiting, "shop.suspects.take": waiting, "others": waiting}
        return Look(at, queues, {})

    found = {problem.queue: problem for problem in problems(look(0, 1), look(6, 3))}
    assert {name: problem.is_bad for name, problem in found.items()} == {
        "orders": False, "shop.suspects.take": False, "others": True,
    }  # fmt: skip
    assert found["orders"].what == "its stage is paused; 3 messages wait"
    assert found["orders"].todo.endswith("rabbitry resume shop take")
