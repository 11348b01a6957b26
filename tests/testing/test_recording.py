"""What was published, and what waits in queues, as a test looks at it."""

import threading
from collections.abc import Iterator

import httpx
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

import rabbitry
from rabbitry.testing import RunningBroker, _recording


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with RunningBroker() as running:
        yield running


@pytest.fixture
def channel(broker: RunningBroker) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("orders", "topic")
        channel.queue_declare("bills")
        channel.queue_bind("bills", "orders", "order.paid")
        yield channel


def test_a_message_is_found_by_its_known_fields(broker: RunningBroker, channel: BlockingChannel) -> None:
    channel.basic_publish("orders", "order.paid", b'{"id": 7}', pika.BasicProperties(headers={"by": "ann"}))
    for expected in (
        {},
        {"exchange": "orders"},
        {"routing_key": "order.paid"},
        {"routing_key": "order.*"},
        {"queue": "bills"},
        {"json": {"id": 7}},
        {"body": b'{"id": 7}'},
        {"exchange": "orders", "routing_key": "#", "queue": "bills", "json": {"id": 7}},
    ):
        message = broker.assert_published(**expected)
        assert message.queues == ("bills",)
        assert message.properties.headers == {"by": "ann"}
        assert message.json == {"id": 7}


@pytest.mark.parametrize(
    ("expected", "named"),
    [
        ({"exchange": "bills"}, "exchange 'bills'"),
        ({"routing_key": "order"}, "routing key 'order'"),
        ({"queue": "paid"}, "queue 'paid'"),
        ({"json": {"id": 8}}, "JSON {'id': 8}"),
        ({"json": None}, "JSON None"),
        ({"body": b"8"}, "body b'8'"),
        ({"vhost": "other"}, "virtual host 'other'"),
        ({"vhost": "other", "body": b"7"}, "virtual host 'other', body b'7'"),
    ],
)
def test_a_missing_message_is_reported_with_the_recorded_ones(
    broker: RunningBroker, channel: BlockingChannel, expected: dict[str, object], named: str
) -> None:
    channel.basic_publish("orders", "order.paid", b"7")
    channel.basic_publish("orders", "order.lost", b"\xff")
    broker.assert_published(body=b"\xff")
    with pytest.raises(AssertionError) as raised:
        broker.assert_published(timeout=0, **expected)  # type: ignore[arg-type] # a table of all arguments
    text = str(raised.value)
    assert text.startswith(f"no message was published with {named}; published were 2 messages")
    assert "exchange 'orders', key 'order.paid', to bills: b'7'" in text
    assert "exchange 'orders', key 'order.lost', to no queue: b'\\xff'" in text


def test_json_null_is_a_value(broker: RunningBroker, channel: BlockingChannel) -> None:
    channel.basic_publish("", "bills", b"null")
    assert broker.assert_published(json=None).body == b"null"


def test_a_recording_has_messages_published_after_its_start(broker: RunningBroker, channel: BlockingChannel) -> None:
    channel.basic_publish("orders", "order.paid", b"before")
    broker.assert_published(body=b"before")
    orders, paid, to_queue = broker.record("orders"), broker.record("orders", "order.paid"), broker.record("", "bills")
    for key in ("order.paid", "order.lost"):
        channel.basic_publish("orders", key, key.encode())
    channel.basic_publish("", "bills", b"direct")
    assert [message.body for message in to_queue.wait()] == [b"direct"]
    assert [message.routing_key for message in orders.messages] == ["order.paid", "order.lost"]
    assert [message.routing_key for message in paid.messages] == ["order.paid"]
    with pytest.raises(TimeoutError, match="1 message of 2 came within 0 s with exchange 'orders', routing key 'order"):
        paid.wait(2, timeout=0)


def test_a_recording_ends_with_its_block(broker: RunningBroker, channel: BlockingChannel) -> None:
    with broker.record("", "bills") as recorded:
        channel.basic_publish("", "bills", b"in")
        assert recorded.wait()[0].body == b"in"
    channel.basic_publish("", "bills", b"after")
    broker.assert_published(body=b"after")
    assert [message.body for message in recorded.messages] == [b"in"]
    assert recorded.wait() == recorded.messages
    with pytest.raises(TimeoutError, match="1 message of 2"):
        recorded.wait(2)


def test_a_recording_waits_for_another_thread(broker: RunningBroker) -> None:
    recorded = broker.record("", "bills")

    def publish() -> None:
        with rabbitry.connect_blocking(broker.url) as connection, connection.channel() as channel:
            channel.declare_queue("bills")
            for number in range(100):
                channel.publish(b"%d" % number, routing_key="bills")

    thread = threading.Thread(target=publish)
    thread.start()
    assert [message.body for message in recorded.wait(100)] == [b"%d" % number for number in range(100)]
    thread.join()


def test_a_transaction_is_recorded_when_it_is_committed(broker: RunningBroker, channel: BlockingChannel) -> None:
    channel.tx_select()
    channel.basic_publish("", "bills", b"rolled back")
    channel.tx_rollback()
    channel.basic_publish("", "bills", b"committed")
    channel.tx_commit()
    assert [message.body for message in broker.queue("bills").messages] == [b"committed"]
    assert broker.assert_published().body == b"committed"


def test_the_management_api_publishes_too(broker: RunningBroker, channel: BlockingChannel) -> None:
    body = {"routing_key": "order.paid", "properties": {}, "payload": "7", "payload_encoding": "string"}
    url = f"{broker.management_url}api/exchanges/%2F/orders/publish"
    httpx.post(url, json=body, auth=("guest", "guest"), timeout=60).raise_for_status()
    assert broker.assert_published(exchange="orders", queue="bills").body == b"7"


def test_the_oldest_are_forgotten(
    broker: RunningBroker, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recording, "MOST_MESSAGES", 10)
    recorded = broker.record("", "bills")
    for number in range(25):
        channel.basic_publish("", "bills", b"%d" % number)
    broker.assert_published(body=b"24")
    assert [message.body for message in recorded.messages] == [b"%d" % number for number in range(15, 25)]
    monkeypatch.setattr(_recording, "MOST_BYTES", 100)
    channel.basic_publish("", "bills", bytes(90))
    broker.assert_published(body=bytes(90))
    assert sum(len(message.body) for message in recorded.messages) <= 100


def test_looking_into_a_queue_takes_nothing(broker: RunningBroker, channel: BlockingChannel) -> None:
    for number in range(3):
        channel.basic_publish("", "bills", b"%d" % number)
    bills = broker.queue("bills")
    for _ in range(2):
        assert [message.body for message in bills.wait(3)] == [b"0", b"1", b"2"]
    method, _, body = channel.basic_get("bills")
    assert (method.redelivered, body) == (False, b"0")
    assert [message.body for message in bills.messages] == [b"1", b"2"]
    channel.basic_nack(method.delivery_tag)
    assert [message.body for message in bills.wait(3)] == [b"0", b"1", b"2"]
    with pytest.raises(TimeoutError, match="'bills' has 3 messages ready after 0 s, and 4"):
        bills.wait(4, timeout=0)


def test_a_missing_queue_is_reported(broker: RunningBroker, channel: BlockingChannel) -> None:
    with pytest.raises(rabbitry.UsageError, match="no queue 'bill' in virtual host '/'; the queues there: bills"):
        _ = broker.queue("bill").messages
    with pytest.raises(rabbitry.UsageError, match="no virtual host 'x'; there are /"):
        _ = broker.queue("bills", vhost="x").messages


def test_the_first_virtual_host_is_the_default() -> None:
    with RunningBroker(vhosts=["shop", "/"]) as broker:
        recorded, elsewhere = broker.record(""), broker.record("", vhost="/")
        with rabbitry.connect_blocking(broker.url) as connection, connection.channel() as channel:
            channel.declare_queue("bills")
            channel.publish(b"1", routing_key="bills")
        assert broker.assert_published().vhost == "shop"
        assert [len(found.messages) for found in (recorded, elsewhere)] == [1, 0]
        assert [message.body for message in broker.queue("bills").messages] == [b"1"]
        with pytest.raises(
            AssertionError, match=r"with any content; .*\n  virtual host 'shop', exchange '', key 'bills'"
        ):
            broker.assert_published(vhost="/", timeout=0)
