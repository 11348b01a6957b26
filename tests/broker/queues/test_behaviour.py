"""What queues do beyond keeping messages, seen by pika, on both brokers."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from tests.support.waiting import eventually_blocking

Channel = Any
"""pika has no type annotations."""


@pytest.fixture
def connection(broker_url: str) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection


@pytest.fixture
def channel(connection: Any) -> Channel:
    return connection.channel()


def _declare(channel: Channel, name: str = "", *, durable: bool = False, **arguments: object) -> str:
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    declared = channel.queue_declare(name, durable=durable, exclusive=not durable, arguments=named)
    return str(declared.method.queue)


def _put(channel: Channel, queue: str, *bodies: bytes, **properties: object) -> None:
    for body in bodies:
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


def _bodies(channel: Channel, queue: str) -> list[bytes]:
    bodies: list[bytes] = []
    while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
        bodies.append(got[2])
    return bodies


def _get(channel: Channel, queue: str) -> tuple[Any, Any, bytes]:
    """Wait for a message."""
    got: list[tuple[Any, Any, bytes]] = []

    def there() -> bool:
        one = channel.basic_get(queue, auto_ack=True)
        if one[0] is not None:
            got.append(one)
        return bool(got)

    eventually_blocking(there, f"a message in {queue}")
    return got[0]


def _count(channel: Channel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_messages_of_a_queue_with_a_time_to_live_expire_into_dead_letters(channel: Channel) -> None:
    dead = _declare(channel)
    queue = _declare(channel, message_ttl=30, dead_letter_exchange="", dead_letter_routing_key=dead)
    _put(channel, queue, b"a", content_type="text/plain")
    _, properties, body = _get(channel, dead)
    assert body == b"a"
    assert properties.content_type == "text/plain"
    headers = properties.headers
    (death,) = headers["x-death"]
    assert death.pop("time")
    assert death == {"count": 1, "reason": "expired", "queue": queue, "exchange": "", "routing-keys": [queue]}
    del headers["x-death"]
    assert headers == {
        "x-first-death-exchange": "",
        "x-first-death-queue": queue,
        "x-first-death-reason": "expired",
    }
    assert _count(channel, queue) == 0


def test_a_message_with_an_expiration_expires_at_the_head_only(channel: Channel) -> None:
    dead = _declare(channel)
    queue = _declare(channel, dead_letter_exchange="", dead_letter_routing_key=dead)
    _put(channel, queue, b"stays")
    _put(channel, queue, b"behind", expiration="1")
    _put(channel, queue, b"last")
    channel.connection.sleep(0.1)
    assert _count(channel, dead) == 0
    assert _bodies(channel, queue) == [b"stays", b"last"]
    _, properties, body = _get(channel, dead)
    assert body == b"behind"
    assert properties.expiration is None
    assert properties.headers["x-death"][0]["original-expiration"] == "1"


def test_a_time_to_live_of_zero_delivers_to_a_waiting_consumer(channel: Channel) -> None:
    queue = _declare(channel, message_ttl=0)
    _put(channel, queue, b"nobody")
    assert _count(channel, queue) == 0
    got: list[bytes] = []
    channel.basic_consume(queue, lambda *args: got.append(args[3]), auto_ack=True)
    _put(channel, queue, b"somebody")
    eventually_blocking(lambda: bool(channel.connection.process_data_events(0)) or got == [b"somebody"], "it")


def test_an_unused_queue_is_deleted(connection: Any, channel: Channel) -> None:
    queue = _declare(channel, "unused", durable=True, expires=100)

    def gone() -> bool:
        connection.sleep(0.2)  # looking is a use too
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
            connection.channel().queue_declare(queue, passive=True)
            return False
        return True

    eventually_blocking(gone, "the queue's end")


def test_the_oldest_messages_are_dropped_at_the_limit(channel: Channel) -> None:
    dead = _declare(channel)
    queue = _declare(channel, max_length=2, dead_letter_exchange="", dead_letter_routing_key=dead)
    _put(channel, queue, b"1", b"2", b"3", b"4")
    _, properties, body = _get(channel, dead)
    assert (body, properties.headers["x-death"][0]["reason"]) == (b"1", "maxlen")
    assert _get(channel, dead)[2] == b"2"
    assert _bodies(channel, queue) == [b"3", b"4"]


def test_bytes_are_limited_too(channel: Channel) -> None:
    queue = _declare(channel, max_length_bytes=10)
    _put(channel, queue, b"12345", b"67890", b"abc")
    assert _bodies(channel, queue) == [b"67890", b"abc"]
    _put(channel, queue, b"12345678901")
    assert _bodies(channel, queue) == []


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses_with_reject_publish(channel: Channel, overflow: str) -> None:
    dead = _declare(channel)
    queue = _declare(channel, max_length=1, overflow=overflow, dead_letter_exchange="", dead_letter_routing_key=dead)
    channel.confirm_delivery()
    _put(channel, queue, b"fits")
    for _ in range(2):
        with pytest.raises(pika.exceptions.NackError):
            _put(channel, queue, b"does not")
    assert _bodies(channel, queue) == [b"fits"]
    assert _bodies(channel, dead) == ([b"does not"] * 2 if overflow == "reject-publish-dlx" else [])
    _put(channel, queue, b"fits again")


def test_a_rejected_message_becomes_a_dead_letter_and_its_deaths_are_counted(channel: Channel) -> None:
    work = _declare(channel, "work-and-back", durable=True, dead_letter_exchange="amq.fanout")
    channel.queue_bind(work, "amq.fanout")
    _put(channel, work, b"again", headers={"own": "header"})
    for count in (1, 2, 3):
        method, properties, _ = _get_unsettled(channel, work)
        headers = properties.headers
        assert headers["own"] == "header"
        if count > 1:
            (death,) = headers["x-death"]
            assert (death["count"], death["reason"]) == (count - 1, "rejected")
            assert method.exchange == "amq.fanout"
            assert method.routing_key == work
        channel.basic_reject(method.delivery_tag, requeue=False)
    channel.queue_delete(work)


def _get_unsettled(channel: Channel, queue: str) -> tuple[Any, Any, bytes]:
    got: list[tuple[Any, Any, bytes]] = []

    def there() -> bool:
        one = channel.basic_get(queue)
        if one[0] is not None:
            got.append(one)
        return bool(got)

    eventually_blocking(there, f"a message in {queue}")
    return got[0]


def test_a_message_in_a_dead_letter_cycle_is_dropped(channel: Channel) -> None:
    queue = _declare(channel, "round", durable=True, message_ttl=10, dead_letter_exchange="", max_length=5)
    _put(channel, queue, b"x")
    eventually_blocking(lambda: channel.connection.process_data_events(0.05) or _count(channel, queue) == 0, "its end")
    channel.queue_delete(queue)


def test_higher_priorities_go_first(channel: Channel) -> None:
    queue = _declare(channel, max_priority=3)
    for number, priority in enumerate((None, 1, 9, 2, 3, 1)):
        _put(channel, queue, b"%d" % number, priority=priority)
    assert _bodies(channel, queue) == [b"2", b"4", b"3", b"1", b"5", b"0"]


def _consume(channel: Channel, queue: str, into: list[bytes], **options: object) -> str:
    return str(channel.basic_consume(queue, lambda *args: into.append(args[3]), auto_ack=True, **options))


def test_single_active_consumer(connection: Any, channel: Channel) -> None:
    queue = _declare(channel, single_active_consumer=True)
    first: list[bytes] = []
    second: list[bytes] = []
    tag = _consume(channel, queue, first)
    _consume(channel, queue, second)
    _put(channel, queue, *[b"x"] * 6)
    _pump(connection, lambda: len(first) == 6)
    channel.basic_cancel(tag)
    _put(channel, queue, *[b"y"] * 4)
    _pump(connection, lambda: len(second) == 4)


def test_consumers_of_a_higher_priority_come_first(connection: Any, channel: Channel) -> None:
    queue = _declare(channel)
    low: list[bytes] = []
    high: list[bytes] = []
    _consume(channel, queue, low)
    _consume(channel, queue, high, arguments={"x-priority": 5})
    _put(channel, queue, *[b"x"] * 6)
    _pump(connection, lambda: len(high) == 6)
    assert low == []


def _pump(connection: Any, condition: Callable[[], bool]) -> None:
    eventually_blocking(lambda: connection.process_data_events(0.01) or condition(), "the deliveries")


def test_a_transaction_takes_effect_at_its_commit(connection: Any, channel: Channel) -> None:
    queue = _declare(channel)
    channel.tx_select()
    _put(channel, queue, b"rolled back")
    channel.tx_rollback()
    _put(channel, queue, b"committed")
    assert _count(channel, queue) == 0
    channel.tx_commit()
    assert _count(channel, queue) == 1
    method, _, _ = channel.basic_get(queue)
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    channel.basic_nack(method.delivery_tag)  # its tag is open again
    channel.tx_commit()
    assert _bodies(channel, queue) == [b"committed"]
    channel.tx_commit()


def test_transactions_and_confirms_do_not_mix(connection: Any) -> None:
    for first, second in (("tx_select", "confirm_delivery"), ("confirm_delivery", "tx_select")):
        channel = connection.channel()
        getattr(channel, first)()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            getattr(channel, second)()
        assert caught.value.reply_code == 406
        assert caught.value.reply_text.startswith("PRECONDITION_FAILED - cannot switch from ")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="channel is not transactional"):
        connection.channel().tx_commit()


def test_direct_replies_bypass_queues(connection: Any, channel: Channel) -> None:
    requests = _declare(channel)
    replies: list[bytes] = []
    _consume(channel, "amq.rabbitmq.reply-to", replies)
    _put(channel, requests, b"what?", reply_to="amq.rabbitmq.reply-to")
    _, properties, _ = _get(channel, requests)
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    other = connection.channel()
    assert other.queue_declare(properties.reply_to, passive=True).method.queue == properties.reply_to
    _put(other, properties.reply_to, b"that")
    _pump(connection, lambda: replies == [b"that"])
    channel.close()
    other.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        other.basic_publish("", properties.reply_to, b"late", mandatory=True)


def test_a_request_without_a_reply_consumer_is_refused(connection: Any) -> None:
    channel = connection.channel()
    queue = _declare(channel)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="fast reply consumer does not exist"):
        _put(channel, queue, b"?", reply_to="amq.rabbitmq.reply-to")


def test_bcc_copies_have_no_bcc_header(channel: Channel) -> None:
    first, second, third = _declare(channel), _declare(channel), _declare(channel)
    _put(channel, first, b"x", headers={"CC": [second], "BCC": [third]})
    for queue in (first, second, third):
        method, properties, _ = _get(channel, queue)
        assert properties.headers == {"CC": [second]}
        assert method.routing_key == first


def test_a_quorum_queue_drops_a_message_after_its_delivery_limit(channel: Channel) -> None:
    dead = _declare(channel)
    queue = _declare(
        channel,
        "limited",
        durable=True,
        queue_type="quorum",
        delivery_limit=2,
        dead_letter_exchange="",
        dead_letter_routing_key=dead,
    )
    _put(channel, queue, b"x")
    counts: list[object] = []
    for _ in range(3):
        method, properties, _ = _get_unsettled(channel, queue)
        counts.append((properties.headers or {}).get("x-delivery-count"))
        channel.basic_nack(method.delivery_tag, requeue=True)
    assert [count or 0 for count in counts] == [0, 1, 2]
    assert _get(channel, dead)[1].headers["x-first-death-reason"] == "delivery_limit"
    channel.queue_delete(queue)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-message-ttl": -1}, "invalid arg 'x-message-ttl' for queue 'q' in vhost '{}': {value_negative,-1}"),
        (
            {"x-message-ttl": "1"},
            "invalid arg 'x-message-ttl' for queue 'q' in vhost '{}': \"expected integer, got longstr\"",
        ),
        ({"x-expires": 0}, "invalid arg 'x-expires' for queue 'q' in vhost '{}': {value_zero,0}"),
        (
            {"x-max-length": True},
            "invalid arg 'x-max-length' for queue 'q' in vhost '{}': \"expected integer, got bool\"",
        ),
        ({"x-max-priority": 256}, "invalid arg 'x-max-priority' for queue 'q' in vhost '{}': {max_value_exceeded,256}"),
        ({"x-overflow": "spill"}, "invalid arg 'x-overflow' for queue 'q' in vhost '{}': invalid_overflow"),
        (
            {"x-dead-letter-routing-key": "k"},
            "invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '{}': routing_key_but_no_dlx_defined",
        ),
        ({"x-queue-type": "square"}, None),
        (
            {"x-queue-mode": "eager"},
            "invalid arg 'x-queue-mode' for queue 'q' in vhost '{}': \"unsupported queue mode 'eager'\"",
        ),
        ({"x-single-active-consumer": 1}, None),
        ({"x-delivery-limit": 3}, None),
        ({"x-queue-type": "quorum"}, None),
    ],
)
def test_wrong_arguments_are_refused_by_name(connection: Any, arguments: dict[str, object], text: str | None) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        connection.channel().queue_declare("q", arguments=arguments)
    assert caught.value.reply_code == 406
    if text is not None:
        vhost = connection._impl.params.virtual_host
        assert caught.value.reply_text == "PRECONDITION_FAILED - " + text.replace("'{}'", f"'{vhost}'")


@pytest.mark.parametrize(
    ("expiration", "text"),
    [
        ("abc", "invalid expiration 'abc': no_integer"),
        ("10x", "invalid expiration '10x': {leftover_string,\"x\"}"),
        ("-1", "invalid expiration '-1': {value_negative,-1}"),
    ],
)
def test_a_wrong_expiration_is_refused(connection: Any, expiration: str, text: str) -> None:
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.basic_publish("", "q", b"", pika.BasicProperties(expiration=expiration))
    assert caught.value.reply_text == f"PRECONDITION_FAILED - {text}"
