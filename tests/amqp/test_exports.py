"""The public names and modules of rabbitry.amqp, word for word."""

import importlib
import pkgutil

import pytest

import rabbitry
from rabbitry.amqp import client

_MODULES = {
    "rabbitry.amqp": {"client", "driver", "protocol"},
    "rabbitry.amqp.client": {"blocking", "channel", "connection", "consuming", "url"},
    "rabbitry.amqp.client.blocking": {"channel", "connection", "consuming", "receipts"},
    "rabbitry.amqp.protocol": {
        "amqp_0_8", "connection", "constants", "contents", "encoding", "events", "hot", "layouts", "methods",
        "properties", "states", "tables",
    },
}  # fmt: skip
_NAMES = {
    "BlockingChannel", "BlockingConnection", "BlockingConsumer", "BlockingConsumers", "BlockingDelivery",
    "BlockingReceipt", "BlockingTransaction", "BrokerURL", "Channel", "Connection", "Consumer", "Consumers",
    "Credentials", "DEFAULT_URL", "Declare", "Delivery", "Properties", "QueueInfo", "Receipt", "RecoveryEvent",
    "Transaction", "connect", "connect_blocking",
    "parse_url",
}  # fmt: skip
_CHANNEL = {
    "bind_exchange", "bind_queue", "close", "close_reason", "consume", "consume_all", "declare_exchange",
    "declare_queue", "delete_exchange", "delete_queue", "get", "has_unconfirmed", "is_open", "limit", "number", "open",
    "publish", "purge_queue", "qos", "send", "transaction", "unbind_exchange", "unbind_queue", "wait_for_confirms",
}  # fmt: skip
_CONNECTION = {
    "blocked", "channel", "channel_max", "close", "close_reason", "frame_limit", "is_open", "publish_timeout",
    "request_timeout", "server_properties", "server_version", "update_secret", "url", "wait_closed",
    "wait_for_confirms",
}  # fmt: skip
_CONSUMERS = {"cancel", "no_ack", "queue"}
_CONSUMER = _CONSUMERS | {"arguments", "consumer_tag", "exclusive", "restore", "start"}
_DELIVERY = {
    "ack", "body", "consumer_tag", "delivery_tag", "exchange", "header", "is_lost", "is_open", "nack", "process",
    "properties", "redelivered", "reject", "routing_key",
}  # fmt: skip
_CLASSES: dict[type, set[str]] = {
    client.Channel: _CHANNEL,
    client.BlockingChannel: _CHANNEL,
    client.Connection: _CONNECTION,
    client.BlockingConnection: _CONNECTION,
    client.Consumer: _CONSUMER,
    client.BlockingConsumer: _CONSUMER | {"next"},
    client.Consumers: _CONSUMERS,
    client.BlockingConsumers: _CONSUMERS | {"next"},
    client.Delivery: _DELIVERY,
    client.BlockingDelivery: _DELIVERY,
    client.Transaction: set(),
    client.BlockingTransaction: set(),
}


def test_the_public_names_are_exact() -> None:
    assert set(client.__all__) == _NAMES
    for name in _NAMES & set(rabbitry.__all__):
        assert getattr(client, name) is getattr(rabbitry, name)


@pytest.mark.parametrize("package", _MODULES)
def test_the_public_modules_are_exact_and_named_by_the_package(package: str) -> None:
    module = importlib.import_module(package)
    found = {item.name for item in pkgutil.iter_modules(module.__path__) if not item.name.startswith("_")}
    assert found == _MODULES[package]
    assert all(f"`{name}`" in (module.__doc__ or "") for name in found)


@pytest.mark.parametrize("of", _CLASSES, ids=lambda of: of.__name__)
def test_a_class_has_only_the_listed_public_names(of: type) -> None:
    assert {name for name in dir(of) if not name.startswith("_")} == _CLASSES[of]


async def test_instances_show_no_more_than_their_classes(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection, await connection.channel() as channel:
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"x", routing_key=queue)
        delivery = await channel.get(queue)
        assert delivery is not None
        shown: list[object] = [connection, channel, channel.consume(queue), channel.consume_all([queue]), delivery]
        for one in shown:
            assert {name for name in dir(one) if not name.startswith("_")} == _CLASSES[type(one)]
        delivery.ack()
