"""Publishing: confirms, returns, CC and BCC, properties that the broker interprets, transactions, direct reply-to."""

from collections.abc import Mapping
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of


@case
def confirms(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q")
    peer.call(m.ConfirmSelect())
    for _ in range(5):
        peer.publish("", "q")
    peer.publish("", "nowhere")
    peer.quiet(0.4)
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"")
    peer.quiet(0.4)


@case
def confirms_of_durable_messages(peer: Peer) -> None:
    peer.queue("q", durable=True)
    peer.call(m.ConfirmSelect())
    for _ in range(3):
        peer.publish("", "q", b"x", Properties(delivery_mode=2))
    peer.quiet(0.2)


@case
def mandatory_comes_back_before_its_ack(peer: Peer) -> None:
    peer.call(m.ConfirmSelect())
    peer.publish("", "nowhere", b"back", Properties(headers={"a": 1}, message_id="m"), mandatory=True)
    peer.quiet()
    peer.publish("amq.topic", "nowhere", b"", mandatory=True)
    peer.quiet()


@case
def mandatory_without_confirms(peer: Peer) -> None:
    peer.publish("amq.direct", "nowhere", b"back", mandatory=True)
    peer.quiet()


@case
def immediate(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", immediate=True)
    peer.quiet()


@case
def publish_to_a_missing_exchange(peer: Peer) -> None:
    peer.call(m.ConfirmSelect())
    peer.publish("missing", "k")
    peer.publish("", "k")
    peer.quiet()


@case
def the_exchange_is_looked_at_before_the_properties(peer: Peer) -> None:
    peer.publish("missing", "k", b"x", Properties(user_id="somebody", expiration="abc"))
    peer.quiet()


def _copied(headers: Mapping[str, FieldValue], peer: Peer) -> None:
    for name in ("a", "b", "c"):
        peer.queue(name)
    peer.publish("", "a", b"x", Properties(headers=headers))
    peer.quiet()
    if not peer.log[-1].startswith("1: ChannelClose"):
        for name in ("a", "b", "c"):
            peer.get(name)


for _index, _headers in enumerate(
    (
        {"CC": ["b"]},
        {"BCC": ["b"]},
        {"CC": ["b"], "BCC": ["c"]},
        {"CC": ["a", "b", "b"]},
        {"CC": []},
        {"CC": "b"},
        {"BCC": "b"},
        {"CC": [1]},
        {"CC": ["missing"]},
        {"BCC": ["b"], "other": 1},
    )
):
    add(f"copies_{_index}", of(_copied, _headers))


@case
def copies_after_others_of_the_same_key(peer: Peer) -> None:
    """Check that a cached route does not hide CC, and that CC does not change the cached route."""
    _copied({"other": 1}, peer)
    _copied({"CC": ["b"], "other": 1}, peer)
    _copied({"other": 1}, peer)
    _copied({"BCC": ["c"]}, peer)
    _copied({}, peer)
    _copied({"CC": "b"}, peer)


def _checked(properties: Properties, peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"x", properties)
    peer.quiet()
    if peer.log[-1].endswith("ack 1"):
        peer.get("q")


for _index, _properties in enumerate(
    (
        Properties(user_id="guest"),
        Properties(user_id="somebody"),
        Properties(user_id=""),
        Properties(expiration="abc"),
        Properties(expiration=""),
        Properties(expiration="10x"),
        Properties(expiration="-1"),
        Properties(expiration="+100000"),
        Properties(expiration="1.5"),
        Properties(expiration=" 1"),
        Properties(expiration="4294967295"),
        Properties(expiration="4294967296"),
        *(Properties(expiration=f"10{rest}") for rest in ("\n", "\t\x1b\b", '"', "\\", "\x01", "\x7f", "é", "٣", "€")),
        Properties(expiration="0010"),
        Properties(expiration="-0"),
        Properties(priority=255),
        Properties(delivery_mode=0),
        Properties(delivery_mode=3),
        Properties(content_type="t", content_encoding="e", correlation_id="c", type="y", app_id="a", cluster_id="k"),
        Properties(reply_to="somewhere"),
        Properties(headers={"a": [1, {"b": None}], "c": 1.5, "d": b"bytes", "e": True}),
    )
):
    add(f"properties_{_index}", of(_checked, _properties))


@case
def transaction(peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.TxSelect())
    peer.publish("", "q", b"1")
    peer.publish("", "q", b"2")
    peer.count("q")
    peer.call(m.TxCommit())
    peer.count("q")
    peer.publish("", "q", b"3")
    peer.call(m.TxRollback())
    peer.call(m.TxCommit())
    peer.count("q")


@case
def transaction_of_acks(peer: Peer) -> None:
    peer.queue("q")
    for body in (b"1", b"2", b"3"):
        peer.publish("", "q", body)
    peer.call(m.TxSelect())
    for _ in range(3):
        peer.get("q", no_ack=False)
    peer.send(m.BasicAck(1))
    peer.send(m.BasicNack(2))
    peer.call(m.TxRollback())
    peer.send(m.BasicAck(1))
    peer.send(m.BasicNack(2))
    peer.call(m.TxCommit())
    peer.get("q")
    peer.call(m.ChannelClose(200, "bye"))
    peer.open(1)
    peer.get("q")
    peer.get("q")


@case
def transaction_returns_at_the_commit(peer: Peer) -> None:
    peer.call(m.TxSelect())
    peer.publish("", "nowhere", b"back", mandatory=True)
    peer.quiet()
    peer.log.append("commit")
    peer.call(m.TxCommit())
    peer.quiet()


@case
def transaction_and_an_unknown_tag(peer: Peer) -> None:
    peer.call(m.TxSelect())
    peer.send(m.BasicAck(7))
    peer.quiet()


@case
def transaction_routes_when_published(peer: Peer) -> None:
    peer.call(m.TxSelect())
    peer.publish("", "q", b"early")
    peer.queue("q")
    peer.call(m.TxCommit())
    peer.count("q")


@case
def transaction_dies_with_its_channel(peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.TxSelect())
    peer.publish("", "q")
    peer.call(m.ChannelClose(200, "bye"))
    peer.open(1)
    peer.count("q")


for _first, _second in ((m.TxSelect(), m.ConfirmSelect()), (m.ConfirmSelect(), m.TxSelect())):

    def _mixed(first: m.Method, second: m.Method, peer: Peer) -> None:
        peer.call(first)
        peer.call(second)

    add(f"{type(_first).__name__}_then_{type(_second).__name__}", of(_mixed, _first, _second))

_PLAIN: Final = {"commit": m.TxCommit(), "rollback": m.TxRollback()}
for _name, _method in _PLAIN.items():

    def _alone(method: m.Method, peer: Peer) -> None:
        peer.call(method)

    add(f"{_name}_without_select", of(_alone, _method))


@case
def direct_reply(peer: Peer) -> None:
    peer.queue("requests")
    peer.consume("amq.rabbitmq.reply-to", "c", no_ack=True)
    peer.publish("", "requests", b"?", Properties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"))
    peer.get("requests")
    peer.call(m.QueueDeclare("amq.rabbitmq.reply-to", passive=True))
    peer.call(m.QueueDeclare("amq.rabbitmq.reply-to.unknown", passive=True))


@case
def direct_reply_needs_no_ack(peer: Peer) -> None:
    peer.consume("amq.rabbitmq.reply-to")


@case
def direct_reply_once_a_channel(peer: Peer) -> None:
    peer.consume("amq.rabbitmq.reply-to", "a", no_ack=True)
    peer.consume("amq.rabbitmq.reply-to", "b", no_ack=True)


@case
def direct_reply_without_a_consumer(peer: Peer) -> None:
    peer.publish("", "anywhere", b"?", Properties(reply_to="amq.rabbitmq.reply-to"))
    peer.quiet()


@case
def direct_reply_to_nobody(peer: Peer) -> None:
    peer.publish("", "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAbG9jYWxob3N0", b"!", mandatory=True)
    peer.quiet()


@case
def direct_reply_cancelled(peer: Peer) -> None:
    peer.consume("amq.rabbitmq.reply-to", "c", no_ack=True)
    peer.call(m.BasicCancel("c"))
    peer.publish("", "anywhere", b"?", Properties(reply_to="amq.rabbitmq.reply-to"))
    peer.quiet()


@case
def direct_reply_get(peer: Peer) -> None:
    peer.get("amq.rabbitmq.reply-to")


@case
def direct_reply_purge_and_delete(peer: Peer) -> None:
    peer.call(m.QueuePurge("amq.rabbitmq.reply-to"))
    peer.open(1)
    peer.call(m.QueueDelete("amq.rabbitmq.reply-to"))
    peer.quiet()


def _tx_change(changes: tuple[m.Method, ...], peer: Peer, exchange: str = "e") -> None:
    """Change bindings and delete queues between a transaction's publish and its commit."""
    peer.call(m.ExchangeDeclare("e", "fanout"))
    peer.queue("q")
    peer.queue("late")
    peer.call(m.QueueBind("q", "e", "k"))
    peer.call(m.TxSelect())
    peer.publish(exchange, "q", b"1", mandatory=True)
    for change in changes:
        peer.call(change)
    peer.call(m.TxCommit())
    peer.quiet()
    peer.get("q")
    peer.open(1)
    peer.get("late")


for _name, _changes in {
    "bind": (m.QueueBind("late", "e", "k"),),
    "unbind": (m.QueueUnbind("q", "e", "k"),),
    "delete_exchange": (m.ExchangeDelete("e"),),
    "delete_queue": (m.QueueDelete("q"),),
    "declare_again": (m.QueueDelete("q"), m.QueueDeclare(queue="q")),
}.items():
    add(f"tx_{_name}_before_the_commit", of(_tx_change, _changes))
    add(f"tx_default_{_name}_before_the_commit", of(_tx_change, _changes, exchange=""))


@case
def expiration_beyond_ten_years(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"", Properties(expiration="315360000000"))
    peer.publish("", "q", b"", Properties(expiration="315360000001"))
    peer.quiet()
