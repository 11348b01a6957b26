"""Records conversations between clients and a real RabbitMQ, byte for byte, as data for the codec's tests.

Run it with `.venv/bin/python -m tests.data.capture`; what it writes is described in README.md beside it.
"""

import asyncio
import contextlib
import datetime
import decimal
import importlib.metadata
import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

from tests.data import raw
from tests.support.proxy import FaultProxy, Way
from tests.support.rabbitmq import RabbitMQ

FOLDER = Path(__file__).parent / "rabbitmq_3_10_8"

# One value of each field type that pika can send, with the tag that it sends it under.
TABLE: dict[str, Any] = {
    "S-string": "k\u00e4se",
    "x-bytes": b"\x00\xff",
    "t-true": True,
    "t-false": False,
    "I-zero": 0,
    "I-lowest": -(2**31),
    "I-highest": 2**31 - 1,
    "l-lowest": -(2**63),
    "l-highest": 2**63 - 1,
    "D-decimal": decimal.Decimal("-12.345"),
    "T-timestamp": datetime.datetime(2024, 2, 29, 12, 30, 45, tzinfo=datetime.UTC),
    "V-none": None,
    "A-array": [1, "two", False, None, [5], {"deep": 4}],
    "A-empty": [],
    "F-table": {"inner": {"innermost": "x"}, "n": 7},
    "F-empty": {},
}

PROPERTIES = pika.BasicProperties(
    content_type="application/json",
    content_encoding="utf-8",
    headers=TABLE,
    delivery_mode=2,
    priority=9,
    correlation_id="correlation",
    reply_to="reply-queue",
    expiration="60000",
    message_id="message-1",
    timestamp=1709209845,
    type="Kind",
    user_id="guest",
    app_id="capture",
    cluster_id="cluster",
)

Conversation = Callable[[RabbitMQ, pika.ConnectionParameters], None]
CONVERSATIONS: dict[str, Conversation] = {}


def conversation(function: Conversation) -> Conversation:
    """Name a function as one conversation; its docstring becomes the description."""
    CONVERSATIONS[function.__name__] = function
    return function


@contextlib.contextmanager
def channel_of(parameters: pika.ConnectionParameters) -> Any:
    """A pika channel, closed in order afterwards unless the server closed it."""
    connection = pika.BlockingConnection(parameters)
    yield connection.channel()
    if connection.is_open:
        connection.close()


@conversation
def handshake(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """Connect, open two channels, close one, close the connection."""
    connection = pika.BlockingConnection(parameters)
    connection.channel(1)
    connection.channel(2).close()
    connection.close()


@conversation
def login_refused(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A wrong password: the server closes the connection with 403 in place of Tune."""
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with contextlib.suppress(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(parameters)


@conversation
def vhost_missing(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A virtual host that does not exist: 530 in answer to Open."""
    parameters.virtual_host = "nowhere"
    with contextlib.suppress(pika.exceptions.ProbableAccessDeniedError):
        pika.BlockingConnection(parameters)


@conversation
def topology(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """Exchanges, queues and bindings: declared (one queue with a table of all types), checked, deleted."""
    with channel_of(parameters) as channel:
        for kind in ("direct", "fanout", "topic", "headers"):
            channel.exchange_declare(f"e-{kind}", kind, durable=kind == "direct", arguments={"x-any": kind})
        channel.exchange_declare("e-direct", passive=True)
        channel.exchange_bind("e-fanout", "e-topic", "a.*.#")
        channel.exchange_unbind("e-fanout", "e-topic", "a.*.#")
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_declare("q", durable=True, arguments=TABLE)
        channel.queue_bind("q", "e-headers", arguments={"x-match": "all", "colour": "red", "size": 7})
        channel.queue_bind(name, "e-direct", "key")
        channel.queue_unbind(name, "e-direct", "key")
        channel.queue_purge("q")
        channel.queue_declare("q", passive=True)
        channel.queue_delete("q")
        channel.exchange_delete("e-topic")


@conversation
def properties(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A message with every property, and one with none: published, got, and delivered to a consumer."""
    with channel_of(parameters) as channel:
        channel.queue_declare("q")
        for _ in range(2):
            channel.basic_publish("", "q", b'{"body": 1}', PROPERTIES)
            channel.basic_publish("", "q", b"")
        tag = channel.basic_get("q")[0].delivery_tag
        channel.basic_ack(tag)
        channel.basic_get("q", auto_ack=True)
        for method, _, _ in channel.consume("q"):
            channel.basic_ack(method.delivery_tag)
            if method.delivery_tag == 4:
                break
        channel.cancel()


@conversation
def confirms_and_returns(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """Confirm mode: a message that is routed, one that is returned, one refused by a full queue (nack)."""
    with channel_of(parameters) as channel:
        channel.confirm_delivery()
        channel.queue_declare("q")
        channel.queue_declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        channel.basic_publish("", "q", b"routed", PROPERTIES, mandatory=True)
        with contextlib.suppress(pika.exceptions.UnroutableError):
            channel.basic_publish("amq.direct", "nobody", b"returned", PROPERTIES, mandatory=True)
        with contextlib.suppress(pika.exceptions.NackError):
            channel.basic_publish("", "full", b"refused", mandatory=True)
            channel.basic_publish("", "full", b"refused", mandatory=True)


@conversation
def settling(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A prefetch of 3: nack and requeue, redelivery, reject, ack of several, cancel, an empty get."""
    with channel_of(parameters) as channel:
        channel.queue_declare("q")
        for number in range(6):
            channel.basic_publish("", "q", b"message %d" % number)
        channel.basic_qos(prefetch_count=3)
        taken = []
        for method, _, _ in channel.consume("q", arguments={"x-priority": 5}):
            taken.append(method.delivery_tag)
            if len(taken) == 1:
                channel.basic_nack(method.delivery_tag, requeue=True)
            elif len(taken) == 2:
                channel.basic_reject(method.delivery_tag, requeue=False)
            elif len(taken) == 5:
                channel.basic_ack(method.delivery_tag, multiple=True)
                break
        channel.cancel()
        channel.basic_recover(requeue=True)
        channel.queue_purge("q")
        channel.basic_get("q")


@conversation
def cancelled_by_server(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """The queue of a consumer is deleted: the server cancels the consumer."""
    with channel_of(parameters) as channel:
        channel.queue_declare("q")
        channel.basic_consume("q", lambda *_: None, consumer_tag="consumer-tag")
        channel.queue_delete("q")
        channel.connection.process_data_events(0.2)


@conversation
def large_bodies(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """Frames of 4096 bytes at most, bodies of 0, 4087, 4088, 4089 (one over a frame) and 20000 bytes."""
    parameters = pika.ConnectionParameters(
        parameters.host, parameters.port, parameters.virtual_host, parameters.credentials, frame_max=4096, heartbeat=60
    )
    with channel_of(parameters) as channel:
        channel.queue_declare("q")
        for size in (0, 4087, 4088, 4089, 20000):
            channel.basic_publish("", "q", bytes(index % 251 for index in range(size)))
        for method, _, _ in channel.consume("q"):
            if method.delivery_tag == 5:
                channel.basic_ack(5, multiple=True)
                break
        channel.cancel()


@conversation
def dead_letters(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A message rejected into another queue: the headers x-death and x-first-death-*."""
    with channel_of(parameters) as channel:
        channel.queue_declare("dead")
        channel.queue_declare("q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        channel.basic_publish("", "q", b"reject me", PROPERTIES)
        channel.basic_reject(channel.basic_get("q")[0].delivery_tag, requeue=False)
        for _ in channel.consume("dead"):
            break
        channel.cancel()


def _closes_channel(parameters: pika.ConnectionParameters, act: Callable[[Any], object]) -> None:
    with channel_of(parameters) as channel, contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
        act(channel)
        raise AssertionError("the server was to close the channel")


@conversation
def channel_closed_404(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """NOT_FOUND: a passive declare of a queue that is not there."""
    _closes_channel(parameters, lambda channel: channel.queue_declare("nowhere", passive=True))


@conversation
def channel_closed_403(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """ACCESS_REFUSED: a queue with the reserved prefix."""
    _closes_channel(parameters, lambda channel: channel.queue_declare("amq.mine"))


@conversation
def channel_closed_405(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """RESOURCE_LOCKED: the exclusive queue of another connection."""
    direct = pika.ConnectionParameters("127.0.0.1", server.port, parameters.virtual_host)
    with channel_of(direct) as other:
        other.queue_declare("mine", exclusive=True)
        _closes_channel(parameters, lambda channel: channel.queue_declare("mine", passive=True))


@conversation
def channel_closed_406(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """PRECONDITION_FAILED: a queue declared again with other flags."""

    def declare_twice(channel: Any) -> None:
        channel.queue_declare("q", durable=False)
        channel.queue_declare("q", durable=True)

    _closes_channel(parameters, declare_twice)


@conversation
def unknown_delivery_tag(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """PRECONDITION_FAILED: an ack for a delivery that never was."""
    with channel_of(parameters) as channel, contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
        channel.basic_ack(17)
        channel.queue_declare("q")


@conversation
def not_implemented_540(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """The flag `immediate`, which RabbitMQ refuses: the connection is closed with 540."""
    with raw.connected(parameters) as peer:
        peer.send(raw.method(1, 20, 10, b"\x00"))
        # basic.publish: reserved, exchange, routing key, bits (immediate is the second)
        peer.send(raw.method(1, 60, 40, b"\x00\x00" + raw.short("") + raw.short("q") + b"\x02"))
        peer.send(raw.header(1, 0, b"\x00\x00"))
        peer.answer_close()


@conversation
def channel_error_504(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A method on a channel that was never opened: the connection is closed with 504."""
    with raw.connected(parameters) as peer:
        peer.send(raw.method(5, 50, 10, b"\x00\x00" + raw.short("q") + b"\x00" + b"\x00\x00\x00\x00"))
        peer.answer_close()


@conversation
def unexpected_frame_505(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A body frame where a method is due: the connection is closed with 505."""
    with raw.connected(parameters) as peer:
        peer.send(raw.method(1, 20, 10, b"\x00"))
        peer.send(raw.frame(3, 1, b"out of place"))
        peer.answer_close()


@conversation
def frame_error_501(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A frame that does not end with CE: the connection is closed with 501."""
    with raw.connected(parameters) as peer:
        peer.send(raw.method(1, 20, 10, b"\x00")[:-1] + b"\x00")
        peer.answer_close()


@conversation
def connection_forced_320(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """An operator closes the connection: 320."""
    connection = pika.BlockingConnection(parameters)
    server.ctl("close_all_connections", "-p", parameters.virtual_host, "maintenance")
    with contextlib.suppress(pika.exceptions.ConnectionClosedByBroker):
        connection.process_data_events(5)


@conversation
def wrong_protocol(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """Something that is not AMQP: the server answers with the header it wants and hangs up."""
    with socket.create_connection((parameters.host, parameters.port), 10) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while peer.recv(4096):
                pass


@conversation
def heartbeats(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A heartbeat of one second, kept up by both sides for two and a half."""
    parameters.heartbeat = 1
    connection = pika.BlockingConnection(parameters)
    connection.sleep(2.5)
    connection.close()


@conversation
def every_field_type(server: RabbitMQ, parameters: pika.ConnectionParameters) -> None:
    """A message whose headers have every field type that RabbitMQ knows, sent and delivered back."""
    values = {
        b"t": b"\x01", b"b": b"\x80", b"B": b"\xff", b"s": b"\x80\x00", b"u": b"\xff\xff",
        b"I": b"\x80\x00\x00\x00", b"i": b"\xff\xff\xff\xff", b"l": b"\x80" + bytes(7),
        b"f": struct.pack(">f", 0.5), b"d": struct.pack(">d", 0.1), b"D": b"\x02\x00\x00\x00\x7b",
        b"S": raw.long("text"), b"x": b"\x00\x00\x00\x02\x00\xff", b"T": struct.pack(">Q", 1709209845),
        b"V": b"", b"A": raw.long(b"b\x01" + b"S" + raw.long("a")), b"F": raw.long(raw.short("k") + b"V"),
    }  # fmt: skip
    table = raw.long(b"".join(raw.short(tag) + tag + value for tag, value in values.items()))
    with raw.connected(parameters) as peer:
        peer.send(raw.method(1, 20, 10, b"\x00"))
        peer.send(raw.method(1, 50, 10, b"\x00\x00" + raw.short("q") + b"\x00" + b"\x00\x00\x00\x00"))
        peer.send(raw.method(1, 60, 40, b"\x00\x00" + raw.short("") + raw.short("q") + b"\x00"))
        peer.send(raw.header(1, 0, b"\x20\x00" + table))
        peer.wait_for(50, 11)
        peer.send(raw.method(1, 60, 20, b"\x00\x00" + raw.short("q") + raw.short("tag") + b"\x02" + raw.long("")))
        peer.wait_for(60, 60)
        peer.close()


class Recorder:
    """Takes what passes the proxy, in order."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, bytes]] = []

    def __call__(self, way: Way, data: bytes) -> None:
        sender = "client" if way is Way.TO_SERVER else "server"
        if self.chunks and self.chunks[-1][0] == sender:
            self.chunks[-1] = (sender, self.chunks[-1][1] + data)
        else:
            self.chunks.append((sender, data))

    def write(self, name: str, description: str, *, folder: Path, client: str) -> None:
        """Write one conversation as README.md says."""
        for sender in ("client", "server"):
            data = b"".join(data for side, data in self.chunks if side == sender)
            (folder / f"{name}.{sender}.bin").write_bytes(data)
        about = {
            "description": description,
            "client": client,
            "server": "RabbitMQ 3.10.8",
            "turns": [[sender, len(data)] for sender, data in self.chunks],
        }
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")


RAW = {
    "not_implemented_540", "channel_error_504", "unexpected_frame_505", "frame_error_501",
    "wrong_protocol", "every_field_type",
}  # fmt: skip


async def record(server: RabbitMQ, name: str, function: Conversation) -> None:
    """Hold one conversation in a virtual host of its own and write it down."""
    vhost = "capture"
    server.add_vhost(vhost)
    recorder = Recorder()
    async with FaultProxy(server.port, tap=recorder) as proxy:
        parameters = pika.ConnectionParameters(
            "127.0.0.1", proxy.port, vhost, pika.PlainCredentials("guest", "guest"), heartbeat=60
        )
        await asyncio.to_thread(function, server, parameters)
    server.delete_vhost(vhost)
    client = "raw frames" if name in RAW else f"pika {importlib.metadata.version('pika')}"
    recorder.write(name, " ".join((function.__doc__ or "").split()), folder=FOLDER, client=client)


async def main() -> None:
    """Record all conversations anew."""
    FOLDER.mkdir(exist_ok=True)
    with RabbitMQ() as server:
        for name, function in CONVERSATIONS.items():
            await record(server, name, function)
            print(name)


if __name__ == "__main__":
    asyncio.run(main())
