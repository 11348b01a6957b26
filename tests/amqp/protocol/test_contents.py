"""Large bodies that are read into their own memory: the same events as from chunks, and no copy."""

import subprocess
import sys
import textwrap
import tracemalloc
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry.amqp.protocol import contents, hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.constants import HEARTBEAT_FRAME
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.events import DELIVER, METHOD, VIOLATION, Event
from rabbitry.amqp.protocol.methods import ChannelClose, ChannelCloseOk
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import octets
from rabbitry.exceptions import ProtocolViolation
from tests.support.deliveries import LIMIT, delivery_frames, fill, open_core

_SIZE = 700_000


def _received(core: Connection, data: bytes) -> list[Event]:
    found: list[Event] = []
    events = core.receive(data)
    while events:
        found += events
        events = core.receive(b"")
    return found


def _read(core: Connection, stream: bytes, sizes: list[int]) -> tuple[list[Event], int]:
    """Pass on a stream as a driver does, at most `sizes` bytes at a time; return also the bytes read in place."""
    found: list[Event] = []
    at = in_place = 0
    for most in cycle(sizes):
        if at >= len(stream):
            return found, in_place
        piece = stream[at : at + most]
        if (room := core.room()) is None:
            found += _received(core, piece)
        else:
            piece = piece[: fill(room, piece)]
            in_place += len(piece)
            events = core.receive_in_place(len(piece))
            while events:
                found += events
                events = core.receive(b"")
        at += len(piece)
    raise AssertionError


def _comparable(events: list[Event]) -> list[object]:
    return [(event[0], str(event[2])) if event[0] == VIOLATION else event for event in events]


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from([1, 2, 8, 0]), max_size=30),
    st.lists(st.sampled_from([3, 5_000, 131_071, 131_072, 131_073, 262_144, 1 << 20]), min_size=1, max_size=5),
    st.sampled_from([LIMIT, LIMIT - 1, 50_000, 4096, 4095]),
    st.sampled_from([_SIZE, 6 * LIMIT]),
)
def test_events_are_those_of_chunks(order: list[int], sizes: list[int], limit: int, size: int) -> None:
    if max(sizes) == 3:  # a stream in pieces of three bytes takes seconds, and never has a cut frame
        sizes = [*sizes, 262_144]
    queues = {1: delivery_frames(1, size, limit) * 2, 2: delivery_frames(2, size)}
    stream = b""
    for channel in [*order, *([1] * len(queues[1])), *([2] * len(queues[2]))]:
        if channel in queues:
            stream += queues[channel].pop(0) if queues[channel] else b""
        else:  # a heartbeat between the frames of a body, or a method of another channel
            stream += HEARTBEAT_FRAME if channel else b""
    events, _ = _read(open_core(), stream, sizes)
    assert events == _received(open_core(), stream)
    assert len(events) == 3


@pytest.mark.parametrize("cut", range(9))
def test_a_read_may_end_anywhere_between_two_frames(cut: int) -> None:
    frames = delivery_frames(1, _SIZE)
    third, fourth = (len(b"".join(frames[:number])) for number in (4, 5))
    # The second read leaves a whole header in the memory that the third one reads its part of a header into.
    stops = [third - 9, third + 5000, fourth - 1 + cut, fourth + 5000, len(b"".join(frames))]
    events, in_place = _read(open_core(), b"".join(frames), [stop - start for start, stop in pairwise([0, *stops])])
    assert events == _received(open_core(), b"".join(frames))
    assert in_place > LIMIT


@pytest.mark.parametrize("limit", [LIMIT, 50_000])
def test_most_of_a_body_is_read_in_place_and_not_copied(limit: int) -> None:
    core = open_core()
    stream = b"".join(delivery_frames(1, _SIZE, limit))
    _, in_place = _read(core, stream[:-20], [262_144])
    assert in_place > _SIZE - 2 * 262_144
    tracemalloc.start()
    try:
        ((*_, body),) = _received(core, stream[-20:])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < _SIZE // 2
    ((*_, expected),) = _received(open_core(), stream)
    assert body == expected


@pytest.mark.parametrize("where", range(1, 6))
def test_a_wrong_end_of_a_frame_is_the_same_violation(where: int) -> None:
    frames = delivery_frames(1, _SIZE)
    frames[1 + where] = frames[1 + where][:-1] + b"\0"
    stream = b"".join(frames)
    expected = _comparable(_received(open_core(), stream))
    for sizes in ([262_144], [262_144, 200_000], [140_000], [100_000]):
        core = open_core()
        events, _ = _read(core, stream, sizes)
        assert _comparable(events) == expected
        assert core.framing_lost


@pytest.mark.parametrize("extra", [b"\x03\0\1\0\x10\0\0", b"\x01\0\1\0\0\0\4\0\x3c\0\x3c\xce"])
def test_another_frame_within_a_body_is_the_same_violation(extra: bytes) -> None:
    frames = delivery_frames(1, _SIZE)
    stream = b"".join([*frames[:4], extra + bytes(1 << 20) if extra[0] == 3 else extra, *frames[4:]])
    expected = _comparable(_received(open_core(), stream))
    events, _ = _read(open_core(), stream, [262_144])
    assert _comparable(events) == expected
    assert any(event[0] == VIOLATION for event in events)


def test_another_frame_in_place_of_a_body_is_reported_in_rabbitmqs_words() -> None:
    frames = delivery_frames(1, _SIZE)
    violation = _received(open_core(), b"".join([*frames[:2], frames[0]]))[-1][2]
    assert isinstance(violation, ProtocolViolation)
    assert violation.reply_text == "UNEXPECTED_FRAME - expected content body, got non content body frame instead"


def test_the_rest_of_a_body_of_a_closed_channel_is_ignored() -> None:
    core = open_core()
    stream = b"".join([*delivery_frames(1, _SIZE), *delivery_frames(2, 10)])
    assert _read(core, stream[:300_000], [262_144])[0] == []
    core.send_method(1, ChannelClose(200, "bye"))
    answer = hot.encode_method_frame(1, encode_method(ChannelCloseOk()))
    events, _ = _read(core, stream[300_000:] + answer, [262_144])
    assert [event[:2] for event in events] == [(DELIVER, 2), (METHOD, 1)]


@pytest.mark.parametrize(
    ("role", "size", "has_room"),
    [
        (Role.CLIENT, _SIZE, True),
        (Role.CLIENT, 1 << 27, True),
        (Role.CLIENT, (1 << 27) + 1, False),  # a header can announce any size
        (Role.CLIENT, 1 << 40, False),
        (Role.CLIENT, 200_000, False),  # the rest comes with the next chunk
        (Role.BROKER, _SIZE, False),  # a client's announcement alone takes no memory
    ],
)
def test_memory_is_allotted_to_a_clients_large_bodies_alone(role: Role, size: int, has_room: bool) -> None:
    core = open_core(role)
    frames = delivery_frames(1, _SIZE)
    if role is Role.BROKER:
        frames[0] = hot.encode_method_frame(1, hot.publish_payload(b"\0", b"\1q", mandatory=False))
    frames[1] = hot.encode_content(1, encode_header(Properties(), size), b"", LIMIT)
    assert _received(core, b"".join(frames)[:140_000]) == []
    assert (core.room() is not None) is has_room


def test_a_violation_names_the_frame_at_fault() -> None:
    frames = delivery_frames(1, _SIZE)
    frames[4] = frames[4][:-1] + b"\0"
    events, _ = _read(open_core(), b"".join(frames), [262_144])
    violation = events[-1][2]
    assert isinstance(violation, ProtocolViolation)
    assert octets(frames[4][7:-1]) in violation.reply_text


def test_a_python_without_ctypes_reads_large_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built without libffi has no ctypes."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    contents._allot.cache_clear()
    try:
        stream = b"".join(delivery_frames(1, _SIZE))
        events, in_place = _read(open_core(Role.CLIENT), stream, [1 << 18])
    finally:
        contents._allot.cache_clear()
    assert in_place
    assert events == _received(open_core(Role.CLIENT), stream)


def test_half_a_body_that_is_dropped_in_a_cycle_is_dropped_in_silence() -> None:
    """A lost connection's errors refer to it, and it to them, so the garbage collector frees them in any order."""
    code = """
        import gc
        from tests.support.deliveries import Role, delivery_frames, open_core

        core = open_core(Role.CLIENT)
        core.receive(b"".join(delivery_frames(1, 700_000))[:200_000])
        lost = {"file": core.room()[0].obj, "core": core}
        lost["itself"] = lost
        del core, lost
        gc.collect()
    """
    # Until Python 3.13, it reports such errors of files in its development mode alone.
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
