"""The firehose: what `amq.rabbitmq.trace` gets of published and delivered messages, on both brokers."""

import re

import httpx

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.testing._broker import RunningBroker
from tests.differential.peer import Peer
from tests.support.rabbitmq import COMPAT, RabbitMQ

_ALL = Properties(
    content_type="t/p",
    headers={"a": 1, "CC": ["copy"], "BCC": ["hidden"]},
    delivery_mode=2,
    priority=3,
    correlation_id="c",
    reply_to="r",
    expiration="90000",
    message_id="m",
    type="ty",
    user_id="guest",
    app_id="ap",
)


def _see(url: str) -> list[str]:
    with Peer(url) as peer:
        peer.queue("trace")
        peer.call(m.QueueBind("trace", "amq.rabbitmq.trace", "#"))
        peer.call(m.ExchangeDeclare("e", "fanout"))
        peer.queue("q")
        peer.call(m.QueueBind("q", "e", ""))
        peer.publish("e", "key", b"body", _ALL)
        peer.publish("", "missing", b"lost", mandatory=True)
        peer.publish("", "q", b"")
        peer.publish("amq.topic", "to.nobody", b"x")
        peer.quiet()
        peer.get("q")
        peer.get("q", no_ack=False)
        peer.send(m.BasicNack(peer.tag, requeue=True))
        peer.quiet()
        peer.consume("q", no_ack=True)
        peer.quiet()
        copies = 7
        peer.until_it_has("trace", copies)
        for _ in range(copies + 1):
            peer.get("trace")
        peer.call(m.BasicCancel("c"))
        for queue in ("trace", "q"):
            peer.call(m.QueueDelete(queue))
        peer.call(m.ExchangeDelete("e"))
    names = r"connection: '[^']*'|node: '[^']*'|vhost: '[^']*'"
    return [re.sub(names, lambda found: found[0].partition(":")[0], line) for line in peer.log]


def test_copies_are_the_same_on_both_brokers(rabbitmq_server: RabbitMQ) -> None:
    url = rabbitmq_server.add_vhost("firehose")
    rabbitmq_server.eval('rabbit_trace:start(<<"firehose">>).')
    expected = _see(url)
    rabbitmq_server.eval('rabbit_trace:stop(<<"firehose">>).')
    rabbitmq_server.delete_vhost("firehose")
    with (
        RunningBroker(compat=COMPAT) as broker,
        httpx.Client(base_url=f"{broker.management_url}api/", auth=("guest", "guest"), timeout=60) as tool,
    ):
        with Peer(broker.url) as before:  # a connection that publishes before tracing is on is traced too
            before.queue("other")
            before.publish("", "other", b"untraced")
            before.carried_out()
            assert tool.put("vhosts/%2F", json={"tracing": True}).status_code == 204
            assert tool.get("vhosts/%2F").json()["tracing"] is True
            assert _see(broker.url) == expected
            before.queue("trace")
            before.call(m.QueueBind("trace", "amq.rabbitmq.trace", "publish.#"))
            before.publish("", "other", b"traced")
            before.until_it_has("trace", 1)
            tool.put("vhosts/%2F", json={"tracing": False})
            before.publish("", "other", b"untraced")
            before.until_it_has("other", 3)
            before.until_it_has("trace", 1)
