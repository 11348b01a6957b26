"""Streams: declaring, offsets, credit, and what they refuse.

Each message is published after the confirm of the one before, so that RabbitMQ puts it into a chunk of its own:
RabbitMQ 3.10 delivers whole chunks, whatever the prefetch. The cases named `argument_…` are run by `make faults`.
"""

from datetime import UTC, datetime
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Float32, Table, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of

_STREAM: Final[Table] = {"x-queue-type": "stream"}
_TIME: Final = datetime(2020, 1, 1, tzinfo=UTC)
_ATTEMPTS: Final = 200


def _declare(peer: Peer, **fields: object) -> None:
    given = m.QueueDeclare("s", durable=True, arguments=_STREAM)
    peer.call(given._replace(**fields))  # type: ignore[arg-type] # scripts give fields of the method


def _fill(peer: Peer, count: int = 5, properties: Properties | None = None) -> None:
    """Publish messages, each after the confirm of the one before."""
    peer.call(m.ConfirmSelect())
    before = sum(": ack " in line for line in peer.log)
    for number in range(1, count + 1):
        peer.publish("", "s", b"m%d" % (number - 1), properties)
        for _ in range(_ATTEMPTS):
            if sum(": ack " in line for line in peer.log) >= before + number or not peer.is_open:
                break
            peer.quiet(0.02)


def _filled(peer: Peer, prefetch: int = 10) -> None:
    _declare(peer)
    _fill(peer)
    peer.call(m.BasicQos(0, prefetch))


def _consume(peer: Peer, offset: FieldValue = "first", tag: str = "c", **arguments: FieldValue) -> None:
    named: Table = {key.replace("_", "-"): value for key, value in arguments.items()}
    peer.call(m.BasicConsume("s", consumer_tag=tag, arguments={"x-stream-offset": offset, **named}))
    peer.quiet()


def _settle(peer: Peer, *settlements: Method) -> None:
    for method in settlements:
        peer.send(method)
        peer.quiet()


def _publish_unconfirmed(peer: Peer) -> None:
    """Publish two messages on another channel: which of a delivery and its confirm comes first is left to chance."""
    peer.open(2)
    for body in (b"one more", b"another"):
        peer.publish("", "s", body, channel=2)
        peer.quiet(0.1)


# -- declaring -----------------------------------------------------------------------------------------


def _properties(peer: Peer, **fields: object) -> None:
    _declare(peer, **fields)


for _name, _fields in {
    "plain": {},
    "transient": {"durable": False},
    "exclusive": {"exclusive": True},
    "auto_delete": {"auto_delete": True},
    "nothing_right": {"durable": False, "exclusive": True, "auto_delete": True},
}.items():
    add(f"stream_declared_{_name}", of(_properties, **_fields))

_VALUES: Final[dict[str, tuple[FieldValue, ...]]] = {
    "x-max-age": (
        "1Y",
        "1M",
        "1D",
        "1h",
        "1m",
        "1s",
        "05h",
        "0s",
        "10",
        "1y",
        "1S",
        "1.5h",
        "1D1h",
        "5 h",
        5,
        True,
        b"1h",
    ),
    "x-max-length-bytes": (0, 1, 5_000_000, -1, "5", True, 1.5, TaggedInt(5, b"b")),
    "x-stream-max-segment-size-bytes": (0, 1, 3_000_000_000, 3_000_000_001, 2**62, -1, "5", None),
    "x-initial-cluster-size": (1, 0, -1, "1", True, [1]),
    "x-queue-leader-locator": ("client-local", "balanced", "word", 5),
    "x-dead-letter-exchange": ("", "e", 5),
    "own": (1, "word"),
    **dict.fromkeys(
        (
            *("x-message-ttl", "x-expires", "x-max-length", "x-max-priority", "x-overflow", "x-queue-mode"),
            *("x-queue-version", "x-single-active-consumer", "x-delivery-limit", "x-dead-letter-routing-key"),
            *("x-dead-letter-strategy", "x-quorum-initial-group-size", "x-queue-master-locator"),
            *("x-max-in-memory-length", "x-max-in-memory-bytes"),
        ),
        (5, "word"),
    ),
}


def _with_argument(argument: str, values: tuple[FieldValue, ...], peer: Peer) -> None:
    for value in values:
        before = len(peer.log)
        _declare(peer, arguments={**_STREAM, argument: value})
        if any("ChannelClose" in line for line in peer.log[before:]):
            peer.open(1)
        else:
            peer.call(m.QueueDelete("s"))


for _argument, _values in _VALUES.items():
    add(f"argument_stream_{_argument}", of(_with_argument, _argument, _values))


def _age_without_a_number(age: str, peer: Peer) -> None:
    _declare(peer, arguments={**_STREAM, "x-max-age": age})


for _age in ("", "s", "-1s", "+5h"):
    add(f"argument_stream_age_{_age}", of(_age_without_a_number, _age))

_LIMITED: Final[Table] = {**_STREAM, "x-max-age": "1h", "x-max-length-bytes": 5_000_000}


@case
def stream_redeclared(peer: Peer) -> None:
    _declare(peer, arguments=_LIMITED)
    others: tuple[Table, ...] = (
        _LIMITED,
        _STREAM,
        {},
        {"x-queue-type": "quorum"},
        {**_LIMITED, "x-max-age": "2h"},
        {**_LIMITED, "x-max-length-bytes": 5_000_001},
        {**_LIMITED, "x-stream-max-segment-size-bytes": 100},
        {**_LIMITED, "x-message-ttl": 100, "x-max-length": 1, "x-expires": 100},
        {**_LIMITED, "x-queue-leader-locator": "balanced"},
        {**_LIMITED, "x-initial-cluster-size": 3},
        {**_LIMITED, "x-queue-type": "classic"},
    )
    for arguments in others:
        before = len(peer.log)
        _declare(peer, arguments=arguments)
        if any("ChannelClose" in line for line in peer.log[before:]):
            peer.open(1)
    _declare(peer, arguments=_LIMITED, durable=False)


# -- offsets -------------------------------------------------------------------------------------------


@case
def stream_offsets(peer: Peer) -> None:
    _filled(peer)
    offsets: tuple[FieldValue, ...] = (
        *("first", "last", "next", "1h", "5m", "1D", "1Y", b"first"),
        *(0, 2, 4, 5, 6, -1, 2**40, TaggedInt(2, b"b"), TaggedInt(2, b"l")),
        *(_TIME, datetime(2100, 1, 1, tzinfo=UTC)),
    )
    for number, offset in enumerate(offsets):
        _consume(peer, offset, f"c{number}")
        peer.call(m.BasicCancel(f"c{number}"))
    for offset in ("0s", "2", "1hh"):
        _consume(peer, offset)
        peer.open(1)
        peer.call(m.BasicQos(0, 10))


def _followed_from(offset: FieldValue, peer: Peer) -> None:
    _filled(peer)
    _consume(peer, offset)
    _publish_unconfirmed(peer)


for _key, _offset in {
    "first": "first",
    "next": "next",
    "5": 5,
    "6": 6,
    "future": datetime(2100, 1, 1, tzinfo=UTC),
}.items():
    add(f"stream_followed_from_{_key}", of(_followed_from, _offset))


def _no_offset(offset: FieldValue, peer: Peer) -> None:
    _declare(peer)
    peer.call(m.BasicQos(0, 10))
    _consume(peer, offset)


for _key, _offset in {
    **{f"word_{word}": word for word in ("", "s", "FIRST", "-5h")},
    "bytes": b"1h",
    "true": True,
    "float": Float32(2.0),
    "nothing": None,
    "list": [1],
}.items():
    add(f"argument_stream_offset_{_key}", of(_no_offset, _offset))


@case
def stream_offset_missing(peer: Peer) -> None:
    _filled(peer)
    peer.consume("s")
    _publish_unconfirmed(peer)


@case
def stream_read_twice(peer: Peer) -> None:
    _filled(peer)
    _consume(peer)
    _consume(peer, 3, "d")
    peer.call(m.ChannelClose(200, "bye", 0, 0))
    peer.open(1)
    peer.call(m.BasicQos(0, 10))
    _consume(peer)


# -- credit --------------------------------------------------------------------------------------------


@case
def stream_acks_are_credit(peer: Peer) -> None:
    _filled(peer, 2)
    _consume(peer)
    _settle(peer, m.BasicAck(2), m.BasicAck(1), m.BasicAck(0, multiple=True), m.BasicAck(5), m.BasicAck(5))


@case
def stream_ack_after_cancel(peer: Peer) -> None:
    _filled(peer, 2)
    _consume(peer)
    peer.call(m.BasicCancel("c"))
    _settle(peer, m.BasicAck(0, multiple=True))
    _consume(peer, 4)


for _outcome in (
    m.BasicNack(1, multiple=False, requeue=True),
    m.BasicNack(0, multiple=True, requeue=False),
    m.BasicReject(1, requeue=True),
    m.BasicReject(1, requeue=False),
):

    def _returned(method: Method, peer: Peer) -> None:
        _filled(peer, 1)
        _consume(peer)
        _settle(peer, method)

    _flags = "_".join(str(value) for value in _outcome)
    add(f"stream_{type(_outcome).__name__}_{_flags}", of(_returned, _outcome))


@case
def stream_recover(peer: Peer) -> None:
    _filled(peer, 1)
    _consume(peer)
    peer.call(m.BasicRecover(requeue=True))
    peer.quiet()


@case
def stream_recover_without_deliveries(peer: Peer) -> None:
    _filled(peer)
    _consume(peer, "next")
    peer.call(m.BasicRecover(requeue=True))


# -- refusals ------------------------------------------------------------------------------------------


@case
def stream_get(peer: Peer) -> None:
    _filled(peer)
    peer.get("s")


@case
def stream_purge(peer: Peer) -> None:
    _filled(peer)
    peer.call(m.QueuePurge("s"))


def _consuming(prefetch: int, shared: int, argument: Table, peer: Peer, *, no_ack: bool = False) -> None:
    _declare(peer)
    if prefetch:
        peer.call(m.BasicQos(0, prefetch))
    if shared:
        peer.call(m.BasicQos(0, shared, global_=True))
    peer.consume("s", arguments=argument, no_ack=no_ack)
    peer.quiet()


for _prefetch in (0, 3):
    for _shared in (0, 3):
        for _no_ack in (False, True):
            add(
                f"stream_consumer_{_prefetch}_{_shared}_{_no_ack}",
                of(_consuming, _prefetch, _shared, {}, no_ack=_no_ack),
            )
_ARGUMENTS: Final[dict[str, Table]] = {
    "priority": {"x-priority": 5},
    "priority_word": {"x-priority": "5"},
    "failover": {"x-cancel-on-ha-failover": True},
    "failover_number": {"x-cancel-on-ha-failover": 5},
    "credit": {"x-credit": 1},
    "alone": {"x-single-active-consumer": True},
    "own": {"own": 1},
}
for _key, _more in _ARGUMENTS.items():
    add(f"argument_stream_consumer_{_key}", of(_consuming, 3, 0, _more))


@case
def stream_exclusive_consumers(peer: Peer) -> None:
    _filled(peer)
    peer.consume("s", "a", exclusive=True)
    peer.consume("s", "b")
    peer.consume("s", "c", exclusive=True)
    peer.count("missing")


@case
def stream_deleted(peer: Peer) -> None:
    _filled(peer)
    _consume(peer, "next")
    peer.call(m.QueueDelete("s", if_unused=True, if_empty=True))
    peer.quiet()


# -- messages ------------------------------------------------------------------------------------------


@case
def stream_message_properties(peer: Peer) -> None:
    headers: Table = {
        "text": "word",
        "number": 1,
        "x-stream-offset": "own",
        "CC": ["other"],
        "BCC": ["third"],
        "t": {"a": 1},
        "x-t": {"a": 1},
        "x-list": [1],
    }
    _declare(peer)
    _fill(peer, 1)
    _fill(peer, 1, Properties(delivery_mode=2, message_id="i", content_type="text/plain"))
    _fill(peer, 1, Properties(content_encoding="gzip", app_id="a", delivery_mode=1))
    _fill(
        peer,
        1,
        Properties(
            content_type="text/plain",
            headers=headers,
            priority=3,
            expiration="100",
            correlation_id="c",
            reply_to="r",
            timestamp=_TIME,
            type="t",
            app_id="a",
        ),
    )
    peer.call(m.BasicQos(0, 10))
    _consume(peer)


@case
def stream_behind_an_exchange(peer: Peer) -> None:
    _declare(peer)
    peer.call(m.ExchangeDeclare("e", "topic"))
    peer.call(m.QueueBind("s", "e", "a.*"))
    peer.call(m.ConfirmSelect())
    peer.publish("e", "a.b", b"routed", mandatory=True)
    peer.quiet()
    peer.publish("e", "b.b", b"unroutable", mandatory=True)
    peer.quiet()
    peer.call(m.BasicQos(0, 10))
    _consume(peer)
    peer.call(m.QueueUnbind("s", "e", "a.*"))


# -- messages of the broker's own ----------------------------------------------------------------------


def _dead_letters(queue: Table, peer: Peer) -> None:
    """Dead-letter a message to a stream and to a queue, and read both."""
    _declare(peer)
    peer.queue("letters")
    peer.call(m.ExchangeDeclare("dlx", "fanout"))
    for name in ("s", "letters"):
        peer.call(m.QueueBind(name, "dlx", ""))
    peer.call(m.QueueDeclare("q", durable=True, arguments={**queue, "x-dead-letter-exchange": "dlx"}))
    peer.queues.add("q")
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"dead", Properties(headers={"a": 1}))
    peer.quiet()
    peer.get("q", no_ack=False)
    peer.send(m.BasicReject(peer.tag, requeue=False))
    peer.until_it_has("letters", 1)
    peer.get("letters")
    peer.call(m.BasicQos(0, 10))
    _consume(peer)
    peer.quiet(0.3)


for _key, _queue in {
    "classic": {"x-queue-type": "classic"},
    "quorum": {"x-queue-type": "quorum"},
    "quorum_that_drops": {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once"},
    "quorum_at_least_once": {
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    },
}.items():
    add(f"stream_of_dead_letters_of_{_key}", of(_dead_letters, _queue))


# -- filters -------------------------------------------------------------------------------------------


def _filtered(peer: Peer) -> None:
    """Publish messages with different values for filters, each after the confirm of the one before."""
    _declare(peer)
    for value in ("a", "b", None, "5", "a"):
        _fill(peer, 1, Properties(headers={} if value is None else {"x-stream-filter-value": value}))
    peer.call(m.BasicQos(0, 10))


@case
def stream_filters(peer: Peer) -> None:
    _filtered(peer)
    filters: tuple[FieldValue, ...] = ("a", ["a", "b"], "zzz", ["a", 5], 5, None, True, b"a", {"a": 1}, "5")
    for number, wanted in enumerate(filters):
        for unfiltered in (None, True, *((False, "yes") if wanted == "zzz" else ())):
            tag = f"c{number}{unfiltered}"
            more: Table = {} if unfiltered is None else {"x_stream_match_unfiltered": unfiltered}
            _consume(peer, "first", tag, x_stream_filter=wanted, **more)
            peer.call(m.BasicCancel(tag))


def _bad_filter(wanted: FieldValue, peer: Peer) -> None:
    _filtered(peer)
    _consume(peer, x_stream_filter=wanted)


for _key, _wanted in {"nothing": [], "bytes": [b"a"], "number": [5]}.items():
    add(f"stream_filter_of_{_key}", of(_bad_filter, _wanted))


def _filter_value(value: FieldValue, peer: Peer) -> None:
    _declare(peer)
    peer.call(m.ConfirmSelect())
    peer.publish("", "s", b"x", Properties(headers={"x-stream-filter-value": value}))
    peer.quiet()


for _key, _value in {"number": 5, "true": True, "bytes": b"a", "nothing": None, "list": ["a"], "empty": ""}.items():
    add(f"stream_filter_value_{_key}", of(_filter_value, _value))


# -- transactions --------------------------------------------------------------------------------------


def _settled_in_a_transaction(outcome: Method, peer: Peer) -> None:
    """Settle deliveries in a transaction: they make room for others when it is committed, in no other way."""
    _declare(peer)
    peer.open(2)
    peer.call(m.ConfirmSelect(), 2)
    for number in range(6):
        peer.publish("", "s", b"m%d" % number, channel=2)
        peer.quiet(0.1)
    peer.call(m.TxSelect())
    peer.call(m.BasicQos(0, 2))
    _consume(peer)
    _settle(peer, m.BasicAck(2), m.BasicAck(1))
    peer.call(outcome)
    peer.quiet(0.2)
    _settle(peer, m.BasicAck(0, multiple=True))
    peer.call(m.TxCommit())
    peer.quiet(0.2)


for _end in (m.TxCommit(), m.TxRollback()):
    add(f"stream_{type(_end).__name__}", of(_settled_in_a_transaction, _end))


@case
def stream_published_in_a_transaction(peer: Peer) -> None:
    _declare(peer)
    peer.open(2)
    peer.call(m.BasicQos(0, 10), 2)
    peer.consume("s", "c", channel=2, arguments={"x-stream-offset": "first"})
    peer.call(m.TxSelect())
    peer.publish("", "s", b"rolled back")
    peer.quiet()
    peer.call(m.TxRollback())
    for body in (b"one", b"two"):
        peer.publish("", "s", body)
    peer.quiet()
    peer.call(m.TxCommit())
    peer.quiet(0.3)
    peer.log.sort()  # the two channels are independent of each other
