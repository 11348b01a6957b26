"""Consumer timeouts: what clients see when they acknowledge too late, on both brokers."""

from collections.abc import Iterator

import pytest

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.tables import FieldValue, Table
from tests.differential.peer import Peer
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import COMPAT, RabbitMQ

_MILLISECONDS = 300
_OWN = "x-consumer-timeout"


@pytest.fixture(scope="module")
def impatient(module_rabbitmq: RabbitMQ) -> Iterator[str]:
    """A RabbitMQ with a short timeout, which it looks at often."""
    settings = {"consumer_timeout": _MILLISECONDS, "channel_tick_interval": 100}
    for name, value in settings.items():
        module_rabbitmq.eval(f"application:set_env(rabbit, {name}, {value}).")
    yield module_rabbitmq.url
    module_rabbitmq.eval("application:set_env(rabbit, consumer_timeout, 1800000).")
    module_rabbitmq.eval("application:unset_env(rabbit, channel_tick_interval).")


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    with BrokerProcess("--memory", "--compat", COMPAT, "--consumer-timeout", str(_MILLISECONDS / 1000)) as broker:
        yield broker.url


def _see(url: str, kind: str, given: dict[str, FieldValue], *, get: bool) -> list[str]:
    """Take messages, and wait until the channel is closed; then take one again."""
    arguments: Table = {"x-queue-type": kind, **given}
    with Peer(url) as peer:
        peer.call(m.QueueDeclare("q", durable=True, arguments=arguments))
        peer.call(m.QueueDeclare("q", durable=True, arguments={"x-queue-type": kind}))  # the timeout is not compared
        peer.call(m.ConfirmSelect())
        for body in (b"1", b"2"):
            peer.publish("", "q", body)
            peer.quiet()
        peer.call(m.BasicQos(0, 10))
        if get:
            peer.get("q", no_ack=False)
        else:
            peer.consume("q", arguments={"x-stream-offset": "first"} if kind == "stream" else {})
        peer.call_on(1, None)  # wait for the close
        peer.open(1)
        if kind != "stream":
            peer.get("q")
        peer.call(m.QueueDelete("q"))
        return peer.log


@pytest.mark.parametrize("get", [False, True])
@pytest.mark.parametrize("kind", ["classic", "quorum", "stream"])
def test_a_channel_that_acknowledges_too_late_is_closed(kind: str, get: bool, impatient: str, embedded: str) -> None:
    if kind == "stream" and get:
        return  # a stream refuses it
    expected = _see(impatient, kind, {}, get=get)
    assert any(f"timed out. Timeout value used: {_MILLISECONDS} ms" in line for line in expected)
    assert _see(embedded, kind, {}, get=get) == expected


@pytest.mark.parametrize("timeout", [0, -1, 200, None])
def test_a_queues_own_timeout_applies_where_the_release_has_it(
    timeout: int | None, impatient: str, embedded: str
) -> None:
    expected = _see(impatient, "classic", {_OWN: timeout}, get=False)
    used = timeout if COMPAT != "3.10" and timeout is not None else _MILLISECONDS
    assert any(f"Timeout value used: {used} ms" in line for line in expected)
    assert _see(embedded, "classic", {_OWN: timeout}, get=False) == expected
