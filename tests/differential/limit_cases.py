"""Length limits, dead letters and priorities of queues."""

from collections.abc import Mapping
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of


def _limited(arguments: Mapping[str, FieldValue], peer: Peer) -> None:
    peer.queue("dead")
    dead: dict[str, FieldValue] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    peer.call(m.QueueDeclare(queue="q", arguments={**dead, **arguments}))
    peer.call(m.ConfirmSelect())
    for body in (b"one", b"two", b"three", b"four is long"):
        peer.publish("", "q", body)
        peer.quiet()
    for _ in range(4):
        peer.get("q")
    for _ in range(4):
        peer.get("dead")


for _overflow in ("drop-head", "reject-publish", "reject-publish-dlx"):
    for _limit in ({"x-max-length": 2}, {"x-max-length": 0}, {"x-max-length-bytes": 8}):
        _label = "_".join(f"{key}_{value}" for key, value in _limit.items())
        add(f"limited_{_overflow}_{_label}", of(_limited, {**_limit, "x-overflow": _overflow}))


@case
def limit_does_not_count_what_is_delivered(peer: Peer) -> None:
    peer.queue("q", x_max_length=1)
    peer.consume("q")
    for body in (b"1", b"2", b"3"):
        peer.publish("", "q", body)
    peer.quiet()
    peer.count("q")


@case
def limit_when_messages_come_back(peer: Peer) -> None:
    peer.queue("q", x_max_length=2)
    for body in (b"1", b"2"):
        peer.publish("", "q", body)
    peer.get("q", no_ack=False)
    peer.get("q", no_ack=False)
    for body in (b"3", b"4"):
        peer.publish("", "q", body)
    peer.send(m.BasicNack(0, True, True))
    peer.get("q")
    peer.get("q")
    peer.get("q")


def _through(queues: int, messages: int, peer: Peer) -> None:
    kinds: tuple[Table, ...] = (
        {"x-message-ttl": 0},
        {"x-max-length": 0},
        {"x-max-length": 0, "x-overflow": "reject-publish-dlx"},
    )
    peer.queue("last")
    for number in range(queues):
        target = f"q{number + 1}" if number + 1 < queues else "last"
        dead: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
        peer.send(m.QueueDeclare(queue=f"q{number}", nowait=True, arguments={**dead, **kinds[number % 3]}))
    peer.call(m.ConfirmSelect())
    for number in range(messages):
        peer.publish("", "q0", b"%d" % number)
    peer.until_it_has("last", messages)
    for _ in range(messages + 1):
        peer.get("last")


# Each queue adds an entry to x-death: the work for a message grows with the square of their number.
add("dead_letters_through_260_queues", of(_through, 260, 1))
add("dead_letters_in_order_through_30_queues", of(_through, 30, 3))


def _rejected(exchange: str, key: str | None, headers: Mapping[str, FieldValue] | None, peer: Peer) -> None:
    peer.queue("dead")
    peer.call(m.QueueBind(queue="dead", exchange="amq.fanout"))
    arguments: dict[str, FieldValue] = {"x-dead-letter-exchange": exchange}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    peer.call(m.QueueDeclare(queue="q", arguments=arguments))
    peer.publish("", "q", b"bad", Properties(headers=headers, priority=3, message_id="m", delivery_mode=2))
    peer.get("q", no_ack=False)
    peer.send(m.BasicReject(1, requeue=False))
    peer.quiet()
    peer.get("dead")


def _old(queue: str, **more: FieldValue) -> Table:
    """Return an entry of x-death as RabbitMQ before 3.5.2 wrote it: one entry for each death."""
    return {"reason": "rejected", "queue": queue, "exchange": "", "routing-keys": [queue], **more}


_REJECTED: Final[tuple[tuple[str, str | None, Table | None], ...]] = (
    ("amq.fanout", None, None),
    ("amq.fanout", "other", None),
    ("", "dead", None),
    ("missing", None, None),
    ("amq.fanout", None, {"CC": ["copy"]}),
    ("amq.fanout", "other", {"CC": ["copy"]}),
    ("amq.fanout", None, {"x-death": "not a list"}),
    ("amq.fanout", None, {"x-death": [{"queue": "q", "reason": "rejected", "count": TaggedInt(4, b"l")}]}),
    ("amq.fanout", None, {"x-death": [{"queue": "other", "reason": "expired", "count": TaggedInt(4, b"l")}]}),
    ("amq.fanout", None, {"z": 1, "a": {"b": [True, None]}}),
    ("amq.fanout", None, {"x-death": [_old("a"), _old("b"), _old("b"), _old("c")]}),
    ("amq.fanout", None, {"x-death": [_old("q"), _old("q"), _old("b", count=2), _old("b", count=5)]}),
    ("amq.fanout", None, {"x-death": []}),
)
for _index, (_exchange, _key, _headers) in enumerate(_REJECTED):
    add(f"rejected_{_index}", of(_rejected, _exchange, _key, _headers))


@case
def dying_twice(peer: Peer) -> None:
    peer.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key="wait")
    peer.queue("wait", x_dead_letter_exchange="", x_dead_letter_routing_key="q", x_message_ttl=20)
    peer.publish("", "q", b"round")
    for _ in range(3):
        peer.get("q", no_ack=False)
        peer.send(m.BasicNack(peer.tag, requeue=False))
        peer.quiet(0.15)
    peer.get("q")


@case
def going_round_without_a_rejection(peer: Peer) -> None:
    peer.queue("a", x_dead_letter_exchange="", x_dead_letter_routing_key="b", x_message_ttl=10)
    peer.queue("b", x_dead_letter_exchange="", x_dead_letter_routing_key="a", x_message_ttl=10)
    peer.publish("", "a")
    peer.quiet(0.2)
    peer.count("a")
    peer.count("b")


@case
def dead_letters_of_a_multiple_nack(peer: Peer) -> None:
    peer.queue("dead")
    peer.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    for body in (b"1", b"2", b"3"):
        peer.publish("", "q", body)
    for _ in range(3):
        peer.get("q", no_ack=False)
    peer.send(m.BasicNack(2, True, False))
    peer.quiet()
    peer.get("dead")
    peer.get("dead")
    peer.get("dead")


@case
def acked_and_purged_messages_are_no_dead_letters(peer: Peer) -> None:
    peer.queue("dead")
    peer.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    peer.publish("", "q")
    peer.publish("", "q")
    peer.get("q", no_ack=False)
    peer.send(m.BasicAck(1))
    peer.call(m.QueuePurge(queue="q"))
    peer.call(m.QueueDelete(queue="q"))
    peer.quiet()
    peer.count("dead")


@case
def priorities(peer: Peer) -> None:
    peer.queue("q", x_max_priority=3)
    for number, priority in enumerate((None, 1, 9, 2, 3, 1, 0)):
        peer.publish("", "q", b"%d" % number, Properties(priority=priority))
    peer.get("q", no_ack=False)
    peer.send(m.BasicNack(1))
    for _ in range(8):
        peer.get("q")


@case
def priority_without_a_priority_queue(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"low", Properties(priority=1))
    peer.publish("", "q", b"high", Properties(priority=9))
    peer.get("q")


@case
def priorities_and_a_limit(peer: Peer) -> None:
    peer.queue("q", x_max_priority=3, x_max_length=2)
    for number, priority in enumerate((1, 3, 2)):
        peer.publish("", "q", b"%d" % number, Properties(priority=priority))
    peer.quiet()
    for _ in range(3):
        peer.get("q")


@case
def overflow_without_an_exchange_for_dead_letters(peer: Peer) -> None:
    peer.queue("full", x_max_length=0, x_overflow="reject-publish-dlx")
    peer.queue("q")
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"1", Properties(headers={"CC": ["full"]}))
    peer.quiet(0.3)
    peer.get("q")
    peer.get("q")
