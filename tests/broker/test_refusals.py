"""Refusals with code and text: the same case on both brokers, with RabbitMQ's texts as the expected ones."""

from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

Step = Callable[[BlockingChannel], Any]

_LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '{vhost}'. "
    "It could be originally declared on another connection or the exclusive property value does not match that of "
    "the original declaration."
)
_CHANNEL: dict[str, tuple[Step, int, str]] = {
    "publish to a missing exchange": (
        lambda c: (c.basic_publish("missing", "k", b""), c.queue_declare("q", passive=True)),
        404,
        "NOT_FOUND - no exchange 'missing' in vhost '{vhost}'",
    ),
    "passive declare of a missing queue": (
        lambda c: c.queue_declare("missing", passive=True),
        404,
        "NOT_FOUND - no queue 'missing' in vhost '{vhost}'",
    ),
    "passive declare of a missing exchange": (
        lambda c: c.exchange_declare("missing", passive=True),
        404,
        "NOT_FOUND - no exchange 'missing' in vhost '{vhost}'",
    ),
    "consume from a missing queue": (
        lambda c: c.basic_consume("missing", lambda *_: None),
        404,
        "NOT_FOUND - no queue 'missing' in vhost '{vhost}'",
    ),
    "bind to a missing exchange": (
        lambda c: c.queue_bind("q", "missing", "k"),
        404,
        "NOT_FOUND - no exchange 'missing' in vhost '{vhost}'",
    ),
    "another durability": (
        lambda c: c.queue_declare("q", durable=True),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '{vhost}': "
        "received 'true' but current is 'false'",
    ),
    "another auto-delete": (
        lambda c: c.queue_declare("q", auto_delete=True),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'q' in vhost '{vhost}': "
        "received 'true' but current is 'false'",
    ),
    "another exchange type": (
        lambda c: c.exchange_declare("e", "fanout"),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '{vhost}': "
        "received 'fanout' but current is 'direct'",
    ),
    "a reserved exchange name": (
        lambda c: c.exchange_declare("amq.mine"),
        403,
        "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
    ),
    "a reserved queue name": (
        lambda c: c.queue_declare("amq.mine"),
        403,
        "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    ),
    "binding to the default exchange": (
        lambda c: c.queue_bind("q", "", "k"),
        403,
        "ACCESS_REFUSED - operation not permitted on the default exchange",
    ),
    "deleting the default exchange": (
        lambda c: c.exchange_delete(""),
        403,
        "ACCESS_REFUSED - operation not permitted on the default exchange",
    ),
    "deleting a reserved exchange": (
        lambda c: c.exchange_delete("amq.direct"),
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '{vhost}' not allowed",
    ),
    "publishing to an internal exchange": (
        lambda c: (c.basic_publish("internal", "k", b""), c.queue_declare("q", passive=True)),
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'internal' in vhost '{vhost}'",
    ),
    "a queue of another connection": (lambda c: c.queue_declare("mine", passive=True), 405, _LOCKED),
    "a second exclusive consumer": (
        lambda c: (
            c.basic_consume("q", lambda *_: None, exclusive=True),
            c.basic_consume("q", lambda *_: None),
        ),
        403,
        "ACCESS_REFUSED - queue 'q' in vhost '{vhost}' in exclusive use",
    ),
    "deleting a queue that is used": (
        lambda c: (c.basic_consume("q", lambda *_: None), c.queue_delete("q", if_unused=True)),
        406,
        "PRECONDITION_FAILED - queue 'q' in vhost '{vhost}' in use",
    ),
    "deleting a queue that is not empty": (
        lambda c: (c.basic_publish("", "q", b"x"), c.queue_delete("q", if_empty=True)),
        406,
        "PRECONDITION_FAILED - queue 'q' in vhost '{vhost}' not empty",
    ),
    "deleting an exchange that is used": (
        lambda c: (c.queue_bind("q", "e", "k"), c.exchange_delete("e", if_unused=True)),
        406,
        "PRECONDITION_FAILED - exchange 'e' in vhost '{vhost}' in use",
    ),
    "an unknown delivery tag": (
        lambda c: (c.basic_ack(7), c.queue_declare("q", passive=True)),
        406,
        "PRECONDITION_FAILED - unknown delivery tag 7",
    ),
    "another user's id": (
        lambda c: (
            c.basic_publish("", "q", b"", pika.BasicProperties(user_id="ann")),
            c.queue_declare("q", passive=True),
        ),
        406,
        "PRECONDITION_FAILED - user_id property set to 'ann' but authenticated user was 'guest'",
    ),
}
_CONNECTION: dict[str, tuple[Step, int, str]] = {
    "an unknown exchange type": (
        lambda c: c.exchange_declare("x", "nonsense"),
        503,
        "COMMAND_INVALID - unknown exchange type 'nonsense'",
    ),
    "a prefetch size": (lambda c: c.basic_qos(prefetch_size=10), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)"),
}


@pytest.fixture
def channel(broker_url: str) -> Any:
    """A channel with queue q, exchanges e and internal; queue mine belongs to another connection."""
    parameters = pika.URLParameters(broker_url)
    with pika.BlockingConnection(parameters) as owner, pika.BlockingConnection(parameters) as connection:
        owner.channel().queue_declare("mine", exclusive=True)
        channel = connection.channel()
        channel.queue_declare("q")
        channel.exchange_declare("e")
        channel.exchange_declare("internal", internal=True)
        yield channel


def _expected(text: str, broker_url: str) -> str:
    return text.format(vhost=pika.URLParameters(broker_url).virtual_host)


@pytest.mark.parametrize("case", _CHANNEL)
def test_the_channel_is_closed(channel: BlockingChannel, broker_url: str, case: str) -> None:
    step, code, text = _CHANNEL[case]
    with pytest.raises(ChannelClosedByBroker) as error:
        step(channel)
    assert (error.value.reply_code, error.value.reply_text) == (code, _expected(text, broker_url))
    again = channel.connection.channel()
    again.queue_declare("q", passive=True)


@pytest.mark.parametrize("case", _CONNECTION)
def test_the_connection_is_closed(broker_url: str, case: str) -> None:
    step, code, text = _CONNECTION[case]
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    with pytest.raises(ConnectionClosedByBroker) as error:
        step(connection.channel())
    assert (error.value.reply_code, error.value.reply_text) == (code, _expected(text, broker_url))
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as next_one:
        next_one.channel()
