"""Exchanges of type x-consistent-hash, as RabbitMQ's rabbitmq_consistent_hash_exchange plugin has them.

Both brokers choose the same queue for each message.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of

_KIND: Final = "x-consistent-hash"
_KEYS: Final = [f"key.{number}" for number in range(40)] + ["", "ü", "k" * 255]


def _declare(arguments: Mapping[str, FieldValue], peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", _KIND, arguments=arguments))
    peer.quiet()


for _name, _arguments in {
    "none": {},
    "header": {"hash-header": "h"},
    "correlation_id": {"hash-property": "correlation_id"},
    "message_id": {"hash-property": "message_id"},
    "timestamp": {"hash-property": "timestamp"},
    "unknown_property": {"hash-property": "app_id"},
    "both": {"hash-header": "h", "hash-property": "message_id"},
    "alternate": {"hash-header": "h", "alternate-exchange": "other"},
}.items():
    add(f"hash_declare_{_name}", of(_declare, _arguments))


def _weigh(key: str, peer: Peer) -> None:
    """Bind one queue with this binding key, and publish a message."""
    peer.queue("q")
    peer.call(m.ExchangeDeclare("e", _KIND))
    peer.call(m.QueueBind("q", "e", key))
    if peer.is_open:
        peer.publish("e", "k", b"m", mandatory=True)
        peer.quiet()


for _number, _key in enumerate(
    ("1", "10", "0", "-1", "-0", "", "+", "a", "1.5", " 1", "1 ", "+1", "01", "1_0", "٣", "€", 'a"\\b', "a\tb", "\0")
):
    add(f"hash_weight_{_number}", of(_weigh, _key))


def _bind(peer: Peer, weights: Sequence[tuple[str, str]], arguments: Mapping[str, FieldValue] | None = None) -> None:
    peer.call(m.ExchangeDeclare("e", _KIND, arguments=arguments or {}))
    for queue, weight in weights:
        peer.queue(queue)
        peer.call(m.QueueBind(queue, "e", weight))


def _drain(peer: Peer, *queues: str) -> None:
    """Log the messages of each queue."""
    peer.carried_out()
    for queue in queues:
        while peer.is_open:
            peer.get(queue)
            if "GetEmpty" in peer.log[-1]:
                break


def _by_key(weights: Sequence[tuple[str, str]], peer: Peer) -> None:
    _bind(peer, weights)
    for key in _KEYS:
        peer.publish("e", key, b"m")
    _drain(peer, *dict(weights))


add("hash_of_a_key_one", of(_by_key, [("a", "1")]))
add("hash_of_a_key_equal", of(_by_key, [("a", "1"), ("b", "1")]))
add("hash_of_a_key_weights", of(_by_key, [("a", "1"), ("b", "5"), ("c", "20")]))
add("hash_of_a_key_twice_bound", of(_by_key, [("a", "2"), ("b", "2"), ("a", "20")]))


def _by_properties(arguments: Mapping[str, FieldValue], messages: Sequence[Properties], peer: Peer) -> None:
    _bind(peer, [("a", "1"), ("b", "1"), ("c", "1")], arguments)
    for number, properties in enumerate(messages):
        peer.publish("e", "k", b"%d" % number, properties)
    _drain(peer, "a", "b", "c")


add(
    "hash_of_a_header",
    of(
        _by_properties,
        {"hash-header": "h"},
        [
            Properties(),
            Properties(headers={}),
            Properties(headers={"other": "x"}),
            *(Properties(headers={"h": f"value {number}"}) for number in range(15)),
            Properties(headers={"h": ""}),
            Properties(headers={"h": "ü"}),
        ],
    ),
)
add(
    "hash_of_a_correlation_id",
    of(
        _by_properties,
        {"hash-property": "correlation_id"},
        [
            Properties(),
            *(Properties(correlation_id=f"{number}") for number in range(15)),
            Properties(correlation_id=""),
        ],
    ),
)
add(
    "hash_of_a_message_id",
    of(
        _by_properties,
        {"hash-property": "message_id"},
        [Properties(correlation_id="7"), *(Properties(message_id=f"{number}") for number in range(15))],
    ),
)
add(
    "hash_of_a_timestamp",
    of(
        _by_properties,
        {"hash-property": "timestamp"},
        [Properties(), *(Properties(timestamp=datetime.fromtimestamp(number, UTC)) for number in range(15))],
    ),
)


@case
def hash_after_unbinding(peer: Peer) -> None:
    _bind(peer, [("a", "3"), ("b", "3"), ("c", "3"), ("a", "4")])
    peer.call(m.QueueUnbind("b", "e", "3"))
    for key in _KEYS[:15]:
        peer.publish("e", key, b"m")
    # This removes the buckets of the first binding, too.
    peer.call(m.QueueUnbind("a", "e", "4"))
    for key in _KEYS[:15]:
        peer.publish("e", key, b"m")
    peer.call(m.QueueUnbind("a", "e", "3"))
    peer.call(m.QueueDelete("c"))
    peer.publish("e", "k", b"nowhere", mandatory=True)
    _drain(peer, "a", "b")


@case
def hash_behind_other_exchanges(peer: Peer) -> None:
    _bind(peer, [("a", "1"), ("b", "1")], {"hash-property": "message_id", "alternate-exchange": "lost"})
    peer.call(m.ExchangeDeclare("front", "topic"))
    peer.call(m.ExchangeBind("e", "front", "#"))
    peer.call(m.ExchangeDeclare("part", "fanout"))
    peer.call(m.ExchangeBind("part", "e", "2"))
    peer.queue("c")
    peer.call(m.QueueBind("c", "part", ""))
    for number in range(20):
        peer.publish("front", "k", b"m", Properties(message_id=f"{number}"))
    _drain(peer, "a", "b", "c")


@case
def hash_of_dead_letters(peer: Peer) -> None:
    _bind(peer, [("a", "1"), ("b", "1")], {"hash-property": "correlation_id"})
    peer.queue("q", x_dead_letter_exchange="e", x_max_length=0)
    for number in range(10):
        peer.publish("", "q", b"m", Properties(correlation_id=f"{number}"))
    peer.carried_out()
    peer.quiet()
    for queue in "ab":
        peer.count(queue)


@case
def hash_of_copies(peer: Peer) -> None:
    """Send CC and BCC: the exchange looks at the first routing key alone."""
    _bind(peer, [("a", "1"), ("b", "1"), ("c", "1")])
    for number in range(10):
        peer.publish("e", f"{number}", b"m", Properties(headers={"CC": [f"copy {number}", "x", "y"]}))
    _drain(peer, "a", "b", "c")


@case
def hash_in_a_transaction(peer: Peer) -> None:
    _bind(peer, [("a", "1"), ("b", "1")], {"hash-header": "h"})
    peer.call(m.TxSelect())
    for number in range(6):
        peer.publish("e", "k", b"m", Properties(headers={"h": f"{number}"}))
    peer.call(m.TxCommit())
    _drain(peer, "a", "b")
