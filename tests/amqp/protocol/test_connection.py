"""A client core and a broker core in memory: states, limits, violations, and the hot path beside the plain one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.constants import HEARTBEAT_FRAME, PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.events import ACK, DELIVER, HEADER, METHOD, PUBLISH, VIOLATION, Event
from rabbitry.amqp.protocol.methods import (
    BasicDeliver,
    BasicPublish,
    BasicQos,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    Method,
    QueueDeclare,
)
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.states import (
    CHANNEL_TRANSITIONS,
    CONNECTION_TRANSITIONS,
    ChannelEvent,
    ChannelState,
    ConnectionEvent,
    ConnectionState,
    step_channel,
    step_connection,
)
from rabbitry.exceptions import ProtocolViolation, UsageError
from tests.support.deliveries import open_pair


def _core(role: Role) -> Connection:
    return Connection(role, frame_max=4096, channel_max=10, max_body_size=100_000)


def _pair(channels: int = 1) -> tuple[Connection, Connection]:
    return open_pair(channels=channels, frame_max=4096, max_body_size=100_000)


def _frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return bytes((kind,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + end


def _publish(channel: int, body: bytes, limit: int = 4088, properties: Properties = Properties()) -> bytes:  # noqa: B008 - immutable
    payload = hot.publish_payload(b"\x00", b"\x01q", mandatory=True)
    return hot.encode_method_frame(channel, payload) + hot.encode_content(
        channel, encode_header(properties, len(body)), body, limit
    )


def _received(core: Connection, data: bytes) -> list[Event]:
    """Return all events of `data`, without answering any."""
    found: list[Event] = []
    while events := core.receive(data):
        found += events
        data = b""
    return found


def _violation(events: list[Event]) -> ProtocolViolation:
    last = events[-1]
    assert last[0] == VIOLATION
    return last[2]


# -- the hot path and the plain one ------------------------------------------------------------------------


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """What a client may send over two channels: publishes of any size, acks, methods and heartbeats."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 12))):
        channel = draw(st.integers(1, 2))
        kind = draw(st.integers(0, 4))
        if kind <= 1:
            size = draw(st.sampled_from([0, 1, 50, 4088, 4089, 9000]))
            parts.append(_publish(channel, draw(st.binary(min_size=size, max_size=size))))
        elif kind == 2:
            parts.append(hot.encode_ack(channel, draw(st.integers(0, 2**64 - 1)), multiple=draw(st.booleans())))
        elif kind == 3:
            parts.append(_core_frame(channel, BasicQos(0, draw(st.integers(0, 9)))))
        else:
            parts.append(HEARTBEAT_FRAME)
    return b"".join(parts)


def _core_frame_of(method: Method) -> bytes:
    """Return the frame of a method on channel 0."""
    return _frame(1, 0, encode_method(method))


def _core_frame(channel: int, method: Method) -> bytes:
    return _pair(2)[0].send_method(channel, method)


@given(_streams(), st.lists(st.integers(1, 5000), max_size=8))
def test_events_do_not_depend_on_how_bytes_are_chunked(stream: bytes, cuts: list[int]) -> None:
    whole = _pair(2)[1].receive(stream)
    assert all(event[0] != VIOLATION for event in whole)

    chunked = _pair(2)[1]
    events: list[Event] = []
    rest = stream
    for cut in cuts:
        events += chunked.receive(rest[:cut])
        rest = rest[cut:]
    events += chunked.receive(rest)
    assert events == whole

    plain = _pair(2)[1]
    plain._ready = _Never()  # the hot path takes nothing, so that all goes the plain way
    assert plain.receive(stream) == whole


class _Never(set[int]):
    """A set that holds nothing, whatever is put in."""

    def __contains__(self, item: object) -> bool:
        return False


def test_one_byte_at_a_time() -> None:
    _, broker = _pair()
    stream = _publish(1, b"x" * 5000) + hot.encode_ack(1, 7, multiple=True)
    events = [event for byte in stream for event in broker.receive(bytes((byte,)))]
    assert [event[0] for event in events] == [PUBLISH, ACK]
    assert events[0][0] == PUBLISH
    assert events[0][4] == b"x" * 5000


def test_hot_encoders_equal_the_plain_ones() -> None:
    client, broker = _pair()
    header = encode_header(Properties(delivery_mode=2), 3)
    content = hot.encode_content(1, header, b"abc", 4088)
    published = client.send_method(1, BasicPublish("", "q", True)) + content
    assert _publish(1, b"abc", properties=Properties(delivery_mode=2)) == published
    deliver = BasicDeliver("t", 9, True, "e", "k")
    encoded = hot.encode_method_frame(1, encode_method(deliver)) + content
    assert encoded == broker.send_method(1, deliver) + content
    events = client.receive(encoded)
    assert [(event[0], event[2]) for event in events] == [(DELIVER, encode_method(deliver)[4:])]


@given(st.binary(max_size=300))
def test_garbage_is_a_violation_or_waits(garbage: bytes) -> None:
    _, broker = _pair()
    for event in broker.receive(garbage):
        if event[0] == VIOLATION:
            assert 500 < event[2].reply_code < 550
    assert broker.receive(b"") == [] or broker.framing_lost


# -- violations --------------------------------------------------------------------------------------------

_HEADER = encode_header(Properties(), 3)
_METHOD = b"\x00\x3c\x00\x28" + b"\x00\x00\x00\x01q\x00"
_QOS = b"\x00\x3c\x00\x0a" + b"\x00" * 7


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_frame(1, 1, _QOS, b"\x00"), 501),
        (_frame(5, 1, _QOS), 501),
        (b"\x01\x00\x01\x00\x10\x00\x00\x00", 501),
        (_frame(8, 1, b""), 505),
        (_frame(8, 0, b"x"), 501),
        (_frame(1, 1, b"\x00"), 501),
        (_frame(1, 1, _METHOD) + _frame(2, 1, _HEADER) + _frame(3, 1, b"abcd"), 501),
        (_frame(1, 1, _METHOD) + _frame(2, 1, b"\x00\x3c"), 501),
        (_frame(1, 1, _QOS + b"x"), 501),
        (_frame(1, 1, b"\x00\x3c\x00\x3c" + b"\x00" * 11), 503),
        (_frame(1, 1, b"\x00\x0a\x00\x32\x00\xc8\x00\x00\x00\x00\x00"), 503),
        (_frame(1, 0, _QOS), 504),
        (_frame(1, 2, _QOS), 504),
        (_frame(1, 1, b"\x00\x14\x00\x0a\x00"), 504),
        (_frame(1, 1, _METHOD) + _frame(1, 1, _QOS), 505),
        (_frame(1, 1, _METHOD) + _frame(3, 1, b"abc"), 505),
        (_frame(2, 1, _HEADER), 505),
        (_frame(3, 1, b"abc"), 505),
        (_frame(1, 1, _METHOD) + _frame(2, 1, b"\x00\x0a" + _HEADER[2:]), 505),
        (_frame(1, 1, b"\x00\x3c\x03\xe7"), 540),
    ],
)
def test_each_violation_has_its_code_and_keeps_earlier_events(data: bytes, code: int) -> None:
    _, broker = _pair()
    events = _received(broker, hot.encode_ack(1, 1, multiple=False) + data)
    assert events[0][0] == ACK
    assert _violation(events).reply_code == code
    if code != 501:
        assert not broker.framing_lost
        broker.send_method(0, ConnectionClose(code, "no"))
        assert broker.receive(_frame(1, 1, _QOS) + _frame(1, 0, b"\x00\x0a\x00\x33"))[-1] == (
            METHOD,
            0,
            ConnectionCloseOk(),
        )


@pytest.mark.parametrize("header", [b"AMQP\x00\x00\x09\x02", b"GET / HT"])
def test_another_protocol_is_refused(header: bytes) -> None:
    broker = _core(Role.BROKER)
    assert _violation(broker.receive(header)).reply_code == 501
    assert broker.receive(PROTOCOL_HEADER) == []


def test_a_too_large_body_is_discarded() -> None:
    _, broker = _pair()
    events = broker.receive(_publish(1, b"x" * 100_001))
    assert events[0][0] == PUBLISH
    assert events[0][4] == b""
    assert int.from_bytes(events[0][3][4:12], "big") == 100_001


# -- states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(ConnectionState))
@pytest.mark.parametrize("event", list(ConnectionEvent))
def test_connection_transitions_follow_the_table(state: ConnectionState, event: ConnectionEvent) -> None:
    known = CONNECTION_TRANSITIONS.get((state, event))
    if known is not None:
        assert step_connection(state, event) is known
    else:
        with pytest.raises(ProtocolViolation, match="504" if state is ConnectionState.OPEN else "503"):
            step_connection(state, event)


@pytest.mark.parametrize("state", list(ChannelState))
@pytest.mark.parametrize("event", list(ChannelEvent))
def test_channel_transitions_follow_the_table(state: ChannelState, event: ChannelEvent) -> None:
    known = CHANNEL_TRANSITIONS.get((state, event))
    if known is not None:
        assert step_channel(state, event) is known
    else:
        answer = event is ChannelEvent.RECEIVE_CLOSE_OK and state is not ChannelState.CLOSED
        with pytest.raises(ProtocolViolation, match="503" if answer else "504"):
            step_channel(state, event)


def test_a_broker_limits_the_count_of_channels_not_their_numbers() -> None:
    _, broker = _pair()  # one channel is open
    for number in range(3000, 3009):
        assert broker.receive(_frame(1, number, b"\x00\x14\x00\x0a\x00"))[0][0] == METHOD
    (event,) = broker.receive(_frame(1, 7, b"\x00\x14\x00\x0a\x00"))
    assert event[0] == VIOLATION
    assert event[2].reply_code == 530


def test_both_sides_may_close_a_channel_at_once() -> None:
    client, broker = _pair()
    from_client = client.send_method(1, ChannelClose(200, "a"))
    from_broker = broker.send_method(1, ChannelClose(404, "b"))
    assert broker.receive(from_client) == [(METHOD, 1, ChannelClose(200, "a"))]
    assert client.receive(from_broker) == [(METHOD, 1, ChannelClose(404, "b"))]
    to_client, to_broker = broker.send_method(1, ChannelCloseOk()), client.send_method(1, ChannelCloseOk())
    assert client.receive(to_client) == [(METHOD, 1, ChannelCloseOk())]
    assert broker.receive(to_broker) == [(METHOD, 1, ChannelCloseOk())]
    assert client.channel_state(1) is ChannelState.CLOSED
    assert broker.channel_state(1) is ChannelState.CLOSED


@pytest.mark.parametrize("cut", [1, 19, 1000])
def test_a_crossing_close_is_answered_before_the_close_ok_that_came_with_it(cut: int) -> None:
    """Either side has closed; the other's close, its close-ok and a use of the number come in one chunk or in several.

    The client, which sent its close first, gets both in one chunk; a broker gets them with the number's next channel.
    """
    client, broker = _pair()
    close = client.send_method(1, ChannelClose(200, "a"))
    both = broker.send_method(1, ChannelClose(404, "b"))
    assert broker.receive(close) == [(METHOD, 1, ChannelClose(200, "a"))]
    both += broker.send_method(1, ChannelCloseOk())
    told: list[Event] = []
    answers = b""
    for start in range(0, len(both), cut):
        data = both[start : start + cut]
        while events := client.receive(data):
            told += events
            data = b""
            if events == [(METHOD, 1, ChannelClose(404, "b"))]:
                answers += client.send_method(1, ChannelCloseOk())
    assert told == [(METHOD, 1, ChannelClose(404, "b")), (METHOD, 1, ChannelCloseOk())]
    answers += client.send_method(1, ChannelOpen())
    assert _received(broker, answers) == [(METHOD, 1, ChannelCloseOk()), (METHOD, 1, ChannelOpen())]


def test_a_close_is_a_lone_event_in_wire_order() -> None:
    client, broker = _pair(2)
    declare, publish = QueueDeclare("missing", passive=True), _publish(2, b"x")
    chunk = publish + client.send_method(1, declare) + client.send_method(1, ChannelClose(200, "bye")) + publish
    events = broker.receive(chunk)
    assert [event[0] for event in events] == [PUBLISH, METHOD]
    assert broker.channel_state(1) is ChannelState.OPEN
    refusal = broker.send_method(1, ChannelClose(404, "NOT_FOUND"))
    assert broker.receive(b"") == [(METHOD, 1, ChannelClose(200, "bye"))]
    refusal += broker.send_method(1, ChannelCloseOk())
    assert [event[0] for event in broker.receive(b"")] == [PUBLISH]
    assert broker.receive(b"") == []
    answers = b""
    while events := client.receive(refusal):
        refusal = b""
        if events == [(METHOD, 1, ChannelClose(404, "NOT_FOUND"))]:
            answers += client.send_method(1, ChannelCloseOk())
    assert broker.receive(answers) == [(METHOD, 1, ChannelCloseOk())]
    assert broker.channel_state(1) is client.channel_state(1) is ChannelState.CLOSED


def test_a_handshake_may_come_in_one_chunk() -> None:
    client, broker = _core(Role.CLIENT), _core(Role.BROKER)
    chunk = client.send_header()
    answers: dict[type[Method], Method] = {
        ConnectionStartOk: ConnectionTune(10, 4096, 0),
        ConnectionOpen: ConnectionOpenOk(),
    }
    client.receive(_core_frame_of(ConnectionStart()))
    chunk += client.send_method(0, ConnectionStartOk())
    client.receive(_core_frame_of(ConnectionTune(10, 4096, 0)))
    chunk += client.send_method(0, ConnectionTuneOk(10, 4096, 0)) + client.send_method(0, ConnectionOpen())
    told: list[int] = []
    while events := broker.receive(chunk):
        ((kind, *_),) = events
        told.append(kind)
        chunk = b""
        if events[0][0] == HEADER:
            broker.send_method(0, ConnectionStart())
        elif events[0][0] == METHOD and (answer := answers.get(type(events[0][2]))) is not None:
            broker.send_method(0, answer)
    assert told == [HEADER, METHOD, METHOD, METHOD]
    assert broker.state is ConnectionState.OPEN


def test_many_closes_in_one_chunk_are_processed_one_by_one() -> None:
    client, broker = _pair(10)
    chunk = b"".join(client.send_method(number, ChannelClose(200, "bye")) for number in range(1, 11))
    told: list[int] = []
    for data in (chunk[:-5], chunk[-5:]):
        while events := broker.receive(data):
            ((_, channel, *_),) = events
            told.append(channel)
            broker.send_method(channel, ChannelCloseOk())
            data = b""
    assert told == list(range(1, 11))


def test_frames_of_a_channel_that_is_closing_are_ignored() -> None:
    client, broker = _pair()
    broker.send_method(1, ChannelClose(404, "gone"))
    late = client.send_method(1, QueueDeclare("q")) + _publish(1, b"x" * 5000) + client.send_method(1, BasicQos())
    assert broker.receive(late) == []
    assert broker.receive(_frame(1, 1, b"\x00\x14\x00\x29")) == [(METHOD, 1, ChannelCloseOk())]
    assert broker.receive(_frame(1, 1, b"\x00\x14\x00\x0a\x00")) == [(METHOD, 1, ChannelOpen())]


def test_an_illegal_send_leaves_the_state_unchanged() -> None:
    client, broker = _pair()
    with pytest.raises(UsageError, match="not for the client"):
        client.send_method(1, BasicDeliver())
    with pytest.raises(UsageError, match="not for the broker"):
        broker.send_method(1, BasicQos())
    with pytest.raises(UsageError, match="second"):
        client.send_method(1, ChannelOpen())
    with pytest.raises(UsageError, match="bytes"):
        client.send_method(1, QueueDeclare("q", arguments={"x": "y" * 5000}))
    assert client.channel_state(1) is ChannelState.OPEN
    assert client.state is ConnectionState.OPEN


# -- what hot and plain must agree on ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3])
def test_content_for_the_other_side_is_refused_on_both_paths(size: int) -> None:
    header = encode_header(Properties(), size)
    deliver = hot.encode_method_frame(1, encode_method(BasicDeliver("", 1, False, "", "")))
    for receiver, data in (
        (_pair()[0], _publish(1, b"x" * size)),
        (_pair()[1], deliver + hot.encode_content(1, header, b"x" * size, 4088)),
    ):
        assert _violation(receiver.receive(data)).reply_code == 503


def test_a_too_large_body_in_one_frame_is_discarded() -> None:
    _, broker = _pair()
    broker.max_body_size = 10
    events = broker.receive(_publish(1, b"x" * 11) + _publish(1, b"x" * 10))
    assert [event[4] for event in events if event[0] == PUBLISH] == [b"", b"x" * 10]


def test_very_many_methods_of_one_chunk_are_split_over_calls() -> None:
    _, broker = _pair()
    parts = []
    data = _frame(1, 1, _QOS) * 1_000 + _publish(1, b"x")
    while events := broker.receive(data):
        parts.append(len(events))
        data = b""
    assert sum(parts) == 1_001
    assert max(parts) < 300


def test_empty_body_frames_are_legal_and_take_no_memory() -> None:
    _, broker = _pair()
    start = _frame(1, 1, _METHOD) + _frame(2, 1, _HEADER)
    assert broker.receive(start + _frame(3, 1, b"") * 1000) == []
    assert broker._contents[1].parts == []
    events = broker.receive(_frame(3, 1, b"a") + _frame(3, 1, b"") + _frame(3, 1, b"bc"))
    assert events == [(PUBLISH, 1, _METHOD[4:], _HEADER, b"abc")]


@pytest.mark.parametrize(
    "late", [_publish(1, b"x"), _publish(1, b"x" * 5000), _frame(1, 1, _QOS), _frame(9, 0, b"?"), b"GET / HTTP"]
)
def test_data_after_the_peers_close_is_ignored(late: bytes) -> None:
    client, broker = _pair()
    close = client.send_method(0, ConnectionClose(200, "bye"))
    assert broker.receive(close + late) == [(METHOD, 0, ConnectionClose(200, "bye"))]
    assert broker.receive(late) == []
    client.receive(broker.send_method(0, ConnectionCloseOk()))
    assert broker.receive(late) == []
    assert not broker.framing_lost
    assert client.state is broker.state is ConnectionState.CLOSED


def test_a_close_within_a_content_drops_the_content() -> None:
    client, broker = _pair()
    assert broker.receive(_frame(1, 1, _METHOD) + _frame(2, 1, _HEADER)) == []
    close = ConnectionClose(200, "bye")
    assert broker.receive(client.send_method(0, close) + _frame(3, 1, b"abc")) == [(METHOD, 0, close)]
    assert broker._contents == {}


def test_both_sides_may_close_the_connection_at_once() -> None:
    client, broker = _pair()
    mine, theirs = ConnectionClose(200, "a"), ConnectionClose(320, "b")
    to_broker, to_client = client.send_method(0, mine), broker.send_method(0, theirs)
    assert broker.receive(to_broker) == [(METHOD, 0, mine)]
    assert client.receive(to_client) == [(METHOD, 0, theirs)]
    to_broker, to_client = client.send_method(0, ConnectionCloseOk()), broker.send_method(0, ConnectionCloseOk())
    assert broker.receive(to_broker) == [(METHOD, 0, ConnectionCloseOk())]
    assert client.receive(to_client) == [(METHOD, 0, ConnectionCloseOk())]
    assert client.state is broker.state is ConnectionState.CLOSED


@given(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=30))
def test_contents_of_several_channels_may_be_interleaved(empty: int, order: list[int]) -> None:
    """Whatever the order of the channels' frames, each channel's messages come out whole."""
    _, broker = _pair(3)
    bodies = {channel: bytes((channel,)) * (0 if channel == empty else 9000) for channel in (1, 2, 3)}
    queues = {channel: _split(_publish(channel, bodies[channel])) for channel in (1, 2, 3)}
    stream = b""
    for turn in [*order, *(number % 3 for number in range(60))]:
        if queues[turn + 1]:
            stream += queues[turn + 1].pop(0) + HEARTBEAT_FRAME
    events = broker.receive(stream)
    assert {event[1]: event[4] for event in events if event[0] == PUBLISH} == bodies
    assert len(events) == 3


def _split(frames: bytes) -> list[bytes]:
    found = []
    while frames:
        size = 8 + int.from_bytes(frames[3:7], "big")
        found.append(frames[:size])
        frames = frames[size:]
    return found


def _pair_with_long_frames() -> tuple[Connection, Connection]:
    client, broker = _pair()
    for core in (client, broker):
        core.tuned(131_072, 10)
        core.max_body_size = 1 << 20
    return client, broker


@given(st.integers(0, 60_000), st.lists(st.integers(1, 130_000), max_size=8))
def test_long_bodies_are_the_same_however_they_are_cut(limit: int, cuts: list[int]) -> None:
    body = bytes(range(251)) * 400
    stream = _publish(1, body, max(limit, 4096)) + _publish(1, b"after") + HEARTBEAT_FRAME + _publish(1, body, 50_000)
    _, broker = _pair_with_long_frames()
    events: list[Event] = []
    start = 0
    for cut in [*cuts, len(stream)]:
        events += broker.receive(stream[start : start + cut])
        start += cut
    events += broker.receive(stream[start:]) if start < len(stream) else []
    assert [event[4] for event in events if event[0] == PUBLISH] == [body, b"after", body]
    assert all(type(event[4]) is bytes for event in events if event[0] == PUBLISH)


def test_a_long_frame_without_an_end_marker_is_a_violation() -> None:
    _, broker = _pair_with_long_frames()
    frames = _publish(1, b"x" * 20_000, 20_000)
    broken = frames[:-1] + b"\x00"
    assert broker.receive(broken[:9000]) == []
    assert broker.receive(broken[9000:-1]) == []
    violation = _violation(broker.receive(broken[-1:]))
    assert violation.reply_code == 501
    assert "type 3" in violation.reply_text
    assert "{invalid_frame_end_marker,0}" in violation.reply_text
    assert broker.framing_lost


def test_the_rest_of_a_long_frame_of_a_closed_channel_is_ignored() -> None:
    client, broker = _pair_with_long_frames()
    frames = _publish(1, b"x" * 60_000, 60_000)
    assert broker.receive(frames[:30_000]) == []
    closing = broker.send_method(1, ChannelClose(404, "NOT_FOUND"))
    assert broker.receive(frames[30_000:]) == []
    assert client.receive(closing)[0][0] == METHOD
    answer = client.send_method(1, ChannelCloseOk()) + client.send_method(1, ChannelOpen())
    assert [type(event[2]) for event in broker.receive(answer)] == [ChannelCloseOk, ChannelOpen]


def test_a_long_body_does_not_keep_chunks_with_little_of_it() -> None:
    _, broker = _pair_with_long_frames()
    start = _publish(1, bytes(100_000), 10)
    head = start.index(b"\x03")
    other = _frame(8, 0, b"") * 2000
    assert broker.receive(start[:head]) == []
    for _ in range(10):
        broker.receive(other + _frame(3, 1, b"y"))
    parts = broker._contents[1].parts
    assert len(parts) == 10
    assert all(isinstance(part, bytes) for part in parts)


@pytest.mark.parametrize("step", [1, 7, 500, 100_000])
def test_a_body_of_very_many_short_frames_is_complete(step: int) -> None:
    _, broker = _pair()
    body = bytes(range(250)) * 20
    stream = _publish(1, body, 1).replace(_frame(3, 1, b"\x07"), _frame(3, 1, b"") * 3 + _frame(3, 1, b"\x07"))
    stream = HEARTBEAT_FRAME * 30 + stream + HEARTBEAT_FRAME * 30 + _publish(1, b"after")
    events: list[Event] = []
    for start in range(0, len(stream), step):
        events += _received(broker, stream[start : start + step])
    assert [event[4] for event in events if event[0] == PUBLISH] == [body, b"after"]


def test_short_body_frames_of_one_chunk_are_kept_as_one_part() -> None:
    _, broker = _pair()
    stream = _publish(1, bytes(5000), 1)
    assert _received(broker, stream[:-5000]) == []
    (content,) = broker._contents.values()
    assert len(content.parts) == 2


def test_a_malformed_short_body_frame_after_others_is_a_violation() -> None:
    for wrong, code in ((_frame(3, 1, b"x", b"\0"), 501), (_frame(3, 1, bytes(5000)), 501), (_frame(3, 2, b"x"), 504)):
        _, broker = _pair()
        violation = _violation(broker.receive(_publish(1, bytes(9000), 1)[:-9000] + wrong))
        assert violation.reply_code == code, wrong[:12]


def test_only_a_client_accepts_a_header_beyond_the_frame_size() -> None:
    # Brokers also deliver messages that came over a connection with larger frames, whose header they can't split.
    client, broker = _pair()
    header = encode_header(Properties(headers={"baggage": "x" * 50_000}), 3)
    content = _frame(2, 1, header) + _frame(3, 1, b"abc")
    deliver = hot.encode_method_frame(1, encode_method(BasicDeliver("c", 1, False, "", "q")))
    data = deliver + content
    for cut in (len(data), 100, 5000):
        taken = client.receive(data[:cut]) + (client.receive(data[cut:]) if cut < len(data) else [])
        assert [(event[0], *event[3:]) for event in taken] == [(DELIVER, header, b"abc")]
    published = hot.encode_method_frame(1, hot.publish_payload(b"\x00", b"\x01q", mandatory=True)) + content
    assert "frame_too_large" in str(_violation(broker.receive(published)))
    large_body = deliver + _frame(2, 1, encode_header(Properties(), 9000)) + _frame(3, 1, b"b" * 9000)
    assert "frame_too_large" in str(_violation(client.receive(large_body)))
