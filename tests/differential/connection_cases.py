"""Connections and channels: logins, tuning, malformed frames, methods in the wrong state, closing."""

import struct
from collections.abc import Callable

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.properties import Properties, encode_header
from tests.differential.peer import Peer, signature
from tests.differential.registry import add, case, of


def _other(script: Callable[[Peer], None], peer: Peer) -> None:
    """Run a script on a connection that has not logged in yet."""
    with Peer(peer.url, log_in=False, patience=peer.patience) as other:
        script(other)
        peer.log += other.log
        other.is_open = False


def _greeting(header: bytes) -> Callable[[Peer], None]:
    def greet(other: Peer) -> None:
        other.raw(header)
        other.quiet(0.3)

    return greet


for _index, _header in enumerate(
    (PROTOCOL_HEADER, b"AMQP\x01\x01\x00\x09", b"AMQP\x00\x01\x00\x00", b"AMQP\x03\x01\x00\x00", b"GET / HTTP/1.1\r\n")
):
    add(f"greeting_{_index}", of(_other, _greeting(_header)))


def _login(mechanism: str, response: bytes, vhost: str | None = None) -> Callable[[Peer], None]:
    def log_in(other: Peer) -> None:
        other.raw(PROTOCOL_HEADER)
        other.call_on(0, None)
        properties = {"capabilities": {"authentication_failure_close": True}}
        other.call_on(0, m.ConnectionStartOk(properties, mechanism, response, "en_US"))
        if vhost is not None:
            other.send(m.ConnectionTuneOk(2047, 131072, 0), 0)
            other.call_on(0, m.ConnectionOpen(vhost))
        other.quiet(0.1)

    return log_in


_LOGINS = (
    ("PLAIN", b"\0guest\0guest"),
    ("PLAIN", b"\0guest\0wrong"),
    ("PLAIN", b"\0nobody\0wrong"),
    ("PLAIN", b"guest\0guest"),
    ("PLAIN", b""),
    ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest"),
    ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05wrong"),
    ("EXTERNAL", b""),
    ("NOTHING", b""),
)
for _index, (_mechanism, _response) in enumerate(_LOGINS):
    add(f"login_{_index}", of(_other, _login(_mechanism, _response)))
add("login_to_a_missing_vhost", of(_other, _login("PLAIN", b"\0guest\0guest", "missing")))


def _tuned(channel_max: int, frame_max: int) -> Callable[[Peer], None]:
    def tune(other: Peer) -> None:
        other.raw(PROTOCOL_HEADER)
        other.call_on(0, None)
        other.call_on(0, m.ConnectionStartOk({}, "PLAIN", b"\0guest\0guest", "en_US"))
        other.send(m.ConnectionTuneOk(channel_max, frame_max, 0), 0)
        other.call_on(0, m.ConnectionOpen(other.vhost))
        other.quiet(0.1)

    return tune


for _channels, _frames in ((0, 0), (10, 4096), (3000, 131072), (2047, 200000), (2047, 1000), (1, 131072)):
    add(f"tune_{_channels}_{_frames}", of(_other, _tuned(_channels, _frames)))


def _raw(data: bytes, peer: Peer) -> None:
    peer.raw(data)
    peer.quiet(0.15)


def _frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


_QOS = signature(m.BasicQos) + b"\0\0\0\0\0\0\0"
_PUBLISH = _frame(1, 1, signature(m.BasicPublish) + b"\0\0\0\x01q\0")
_HEADER = encode_header(Properties(), 3)


def _headers(fields: bytes, destination: bytes = b"\0\x01q\0") -> bytes:
    """Publish a message whose headers table has these fields."""
    table = len(fields).to_bytes(4, "big") + fields
    method = _frame(1, 1, signature(m.BasicPublish) + b"\0\0" + destination)
    return method + _frame(2, 1, _HEADER[:12] + b"\x20\0" + table) + _frame(3, 1, b"abc")


_FRAMES = {
    "unknown_type": _frame(5, 1, b"abc"),
    "no_end": _frame(1, 1, _QOS, b"\0"),
    "too_large": struct.pack(">BHI", 1, 1, 200_000) + b"x" * 100,
    "payload_of_the_frame_size": _PUBLISH
    + _frame(2, 1, encode_header(Properties(), 131072))
    + _frame(3, 1, b"x" * 131072),
    "payload_over_the_frame_size": _PUBLISH
    + _frame(2, 1, encode_header(Properties(), 131073))
    + _frame(3, 1, b"x" * 131073),
    "unknown_class": _frame(1, 1, b"\0\x63\0\x0a"),
    "unknown_method": _frame(1, 1, b"\0\x3c\0\x63"),
    "server_method": _frame(1, 1, signature(m.BasicQosOk)),
    "deliver": _frame(1, 1, signature(m.BasicDeliver) + b"\0" * 12),
    "cut_short": _frame(1, 1, _QOS[:-3]),
    "too_long": _frame(1, 1, _QOS + b"abc"),
    "empty_method": _frame(1, 1, b""),
    "closed_channel": _frame(1, 5, _QOS),
    "channel_zero": _frame(1, 0, _QOS),
    "heartbeat": _frame(8, 0, b""),
    "heartbeat_on_a_channel": _frame(8, 1, b""),
    "heartbeat_with_a_payload": _frame(8, 0, b"abc"),
    "heartbeat_with_a_payload_on_a_channel": _frame(8, 1, b"abc"),
    "unknown_type_of_16_bytes": _frame(5, 1, b"0123456789abcdef"),
    "unknown_type_of_17_bytes": _frame(5, 1, b"0123456789abcdefg"),
    "connection_close_on_a_channel": _frame(1, 1, signature(m.ConnectionClose) + b"\0\xc8\0\0\0\0\0"),
    "connection_close_on_a_closed_channel": _frame(1, 5, signature(m.ConnectionClose) + b"\0\xc8\0\0\0\0\0"),
    "connection_open_on_a_channel": _frame(1, 1, signature(m.ConnectionOpen) + b"\x01/\0\0"),
    "header_first": _frame(2, 1, _HEADER),
    "body_first": _frame(3, 1, b"abc"),
    "method_in_a_content": _PUBLISH + _frame(1, 1, _QOS),
    "body_without_header": _PUBLISH + _frame(3, 1, b"abc"),
    "header_twice": _PUBLISH + _frame(2, 1, _HEADER) * 2,
    "header_of_another_class": _PUBLISH + _frame(2, 1, b"\0\x14" + _HEADER[2:]),
    "header_with_a_weight": _PUBLISH + _frame(2, 1, _HEADER[:2] + b"\0\1" + _HEADER[4:]),
    "header_with_a_large_weight": _PUBLISH + _frame(2, 1, _HEADER[:2] + b"\1\0" + _HEADER[4:]) + _frame(3, 1, b"abc"),
    "body_too_long": _PUBLISH + _frame(2, 1, _HEADER) + _frame(3, 1, b"abcd"),
    "body_with_empty_frames": _PUBLISH
    + _frame(2, 1, _HEADER)
    + _frame(3, 1, b"a")
    + _frame(3, 1, b"")
    + _frame(3, 1, b"bc")
    + _frame(1, 1, _QOS),
    "content_on_channel_zero": _frame(2, 0, _HEADER),
    "channel_open_on_zero": _frame(1, 0, signature(m.ChannelOpen) + b"\0"),
    "channel_open_twice": _frame(1, 1, signature(m.ChannelOpen) + b"\0"),
    "channel_too_high": _frame(1, 3000, signature(m.ChannelOpen) + b"\0"),
    "channel_highest": _frame(1, 2047, signature(m.ChannelOpen) + b"\0"),
    "channel_over_highest": _frame(1, 2048, signature(m.ChannelOpen) + b"\0"),
    "open_twice": _frame(1, 0, signature(m.ConnectionOpen) + b"\x01/\0\0"),
    "start_ok_late": _frame(1, 0, signature(m.ConnectionTuneOk) + b"\0" * 8),
    "table_cut_short": _frame(1, 1, signature(m.QueueDeclare) + b"\0\0\x01q\0\0\0\0\x09\x01aI"),
    "table_of_an_unknown_type": _frame(1, 1, signature(m.QueueDeclare) + b"\0\0\x01q\0\0\0\0\x04\x01aZ\0"),
    "table_too_long": _frame(1, 1, signature(m.QueueDeclare) + b"\0\0\x01q\0\0\0\x01\0\x01a"),
    "properties_cut_short": _PUBLISH + _frame(2, 1, _HEADER[:12] + b"\x80\0\x09ab") + _frame(3, 1, b"abc"),
    "header_with_nan": _headers(b"\x01rd\x7f\xf8\0\0\0\0\0\0"),
    "header_with_infinity": _headers(b"\x01rd\x7f\xf0\0\0\0\0\0\0"),
    "header_with_minus_infinity": _headers(b"\x01rd\xff\xf0\0\0\0\0\0\0"),
    "header_with_a_short_nan": _headers(b"\x01rf\x7f\xc0\0\0"),
    "header_with_nan_in_a_table": _headers(b"\x01rF\0\0\0\x0b\x01rd\x7f\xf8\0\0\0\0\0\0"),
    "header_with_nan_in_an_array": _headers(b"\x01rA\0\0\0\x09d\x7f\xf8\0\0\0\0\0\0"),
    "header_of_the_largest_double": _headers(b"\x01rd\x7f\xef\xff\xff\xff\xff\xff\xff"),
    "header_of_an_unknown_type": _headers(b"\x01aZ"),
    "header_table_cut_short": _PUBLISH + _frame(2, 1, _HEADER[:12] + b"\x20\0\0\0\0\x30\x01aI") + _frame(3, 1, b"abc"),
    "nan_to_a_missing_exchange": _headers(b"\x01rd\x7f\xf8\0\0\0\0\0\0", b"\x04none\x01q\0"),
    "unknown_property_flags": _PUBLISH + _frame(2, 1, _HEADER[:12] + b"\0\x02") + _frame(3, 1, b"abc"),
    "access_request": _frame(1, 1, signature(m.AccessRequest) + b"\x01/\x1f"),
}
for _name, _data in _FRAMES.items():
    add(f"frame_{_name}", of(_raw, _data))


@case
def closing_a_channel(peer: Peer) -> None:
    peer.call(m.ChannelClose(200, "bye"))
    peer.open(1)
    peer.call(m.ChannelClose(200, "bye"))


@case
def frames_after_a_channel_error_are_ignored(peer: Peer) -> None:
    peer.queue("q")
    peer.send(m.BasicAck(9))
    peer.publish("", "q", b"late")
    peer.quiet()
    peer.open(1)
    peer.count("q")


@case
def close_ok_that_nobody_asked_for(peer: Peer) -> None:
    peer.send(m.ChannelCloseOk())
    peer.quiet()


@case
def connection_close_ok_that_nobody_asked_for(peer: Peer) -> None:
    peer.send(m.ConnectionCloseOk(), 0)
    peer.quiet()


@case
def exclusive_queues_go_before_close_ok(peer: Peer) -> None:
    with Peer(peer.url, patience=peer.patience) as other:
        other.queue("mine", exclusive=True)
        peer.queue("mine")
        peer.open(1)
        peer.call(m.QueueDelete("mine"))
        peer.open(1)
    peer.count("mine")


@case
def other_connections_queue(peer: Peer) -> None:
    with Peer(peer.url, patience=peer.patience) as other:
        other.queue("mine", exclusive=True)
        for method in (
            m.QueueDeclare("mine", passive=True),
            m.QueueBind("mine", "amq.direct", "k"),
            m.QueueUnbind("mine", "amq.direct", "k"),
            m.QueuePurge("mine"),
            m.BasicGet("mine"),
            m.BasicConsume("mine"),
        ):
            peer.call(method)
            peer.open(1)
        peer.publish("", "mine", b"anybody may publish")
        peer.quiet()
        other.get("mine")
        peer.log += other.log


@case
def update_secret(peer: Peer) -> None:
    peer.call(m.ConnectionUpdateSecret(b"guest", "tests"), 0)
    peer.quiet()


def _large_start_ok(size: int) -> Callable[[Peer], None]:
    def start(other: Peer) -> None:
        other.raw(PROTOCOL_HEADER)
        other.call_on(0, None)
        other.call_on(0, m.ConnectionStartOk({"large": "x" * size}, "PLAIN", b"\0guest\0guest", "en_US"))

    return start


for _size in (4000, 5000):
    add(f"start_ok_of_{_size}", of(_other, _large_start_ok(_size)))


def _chunk(*methods: tuple[int, m.Method]) -> bytes:
    frames = []
    for channel, method in methods:
        payload = encode_method(method)
        frames.append(struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce")
    return b"".join(frames)


_BYE = (0, m.ConnectionClose(200, "bye"))


def _closing(*requests: tuple[int, m.Method]) -> Callable[[Peer], None]:
    """Send requests and the close of their connection or channel in one chunk."""

    def close(peer: Peer) -> None:
        peer.queue("q")
        peer.raw(_chunk(*requests))
        peer.quiet(0.3)

    return close


for _name, _requests in {
    "declare": ((1, m.QueueDeclare(queue="q")), _BYE),
    "durable_declare": ((1, m.QueueDeclare(queue="durable", durable=True)), (1, m.QueueDelete(queue="durable")), _BYE),
    "open": ((2, m.ChannelOpen()), _BYE),
    "error": ((1, m.QueueDeclare(queue="missing", passive=True)), _BYE),
    "declare_on_a_channel": ((1, m.QueueDeclare(queue="q")), (1, m.ChannelClose(200, "bye"))),
    "error_on_a_channel": ((1, m.QueueDeclare(queue="missing", passive=True)), (1, m.ChannelClose(200, "bye"))),
    "open_a_channel": ((2, m.ChannelOpen()), (2, m.ChannelClose(200, "bye"))),
}.items():
    add(f"closing_in_the_same_chunk_{_name}", _closing(*_requests))


def _crossing(refused: tuple[int, m.Method], *answers: tuple[int, m.Method]) -> Callable[[Peer], None]:
    """Send a request that makes the broker close, and a close of our own that crosses it."""

    def close(peer: Peer) -> None:
        peer.answers_closes = False
        peer.call(refused[1], refused[0])
        peer.raw(_chunk(*answers))
        peer.quiet(0.3)
        if peer.is_open:
            peer.open(1)
            if "ConnectionClose(" not in peer.log[-1]:
                peer.count("missing")

    return close


_REFUSED = (1, m.QueueDeclare(queue="missing", passive=True))
_CLOSE, _CLOSE_OK, _OPEN = (1, m.ChannelClose(200, "bye")), (1, m.ChannelCloseOk()), (1, m.ChannelOpen())
_BYE_OK = (0, m.ConnectionCloseOk())
add("crossing_close_and_close_ok", _crossing(_REFUSED, _CLOSE, _CLOSE_OK))
add("crossing_close_close_ok_and_open", _crossing(_REFUSED, _CLOSE, _CLOSE_OK, _OPEN))
add("crossing_close_twice_and_close_ok", _crossing(_REFUSED, _CLOSE, _CLOSE, _CLOSE_OK))
add("crossing_close_ok_and_open", _crossing(_REFUSED, _CLOSE_OK, _OPEN))
add("crossing_connection_close_and_close_ok", _crossing((9, m.QueueDeclare("q")), _BYE, _BYE_OK))
add("crossing_both_closes_and_close_ok", _crossing((9, m.QueueDeclare("q")), _CLOSE, _BYE, _BYE_OK))


def _returned(close: tuple[int, m.Method], peer: Peer) -> None:
    channel, method = close
    publish = m.BasicPublish("", "nowhere", True, False)
    header = encode_header(Properties(), 0)
    frames = _chunk((1, publish)) + struct.pack(">BHI", 2, 1, len(header)) + header + b"\xce"
    peer.raw(frames + _chunk((channel, method)))
    peer.quiet(0.3)


add("closing_in_the_same_chunk_return", of(_returned, _BYE))
add("closing_in_the_same_chunk_return_on_a_channel", of(_returned, (1, m.ChannelClose(200, "bye"))))

for _index, _method in enumerate(
    (
        m.QueueDeclare(queue="\udcff"),
        m.ExchangeDeclare("\udcff", "direct"),
        m.QueueBind("q", "amq.direct", "\udcff"),
        m.BasicCancel("\udcff"),
        m.ChannelClose(200, "\udcff"),
    )
):
    add(f"names_that_are_no_utf8_{_index}", of(lambda method, peer: peer.call(method), _method))


@case
def published_names_that_are_no_utf8(peer: Peer) -> None:
    peer.publish("amq.direct", "\udcff")
    peer.quiet()
    peer.publish("\udcff", "k")
    peer.quiet()
