"""AMQP 0-8 on the broker's side: its layouts; and 0-9-1 is unchanged."""

import pytest

from rabbitry.amqp.protocol.amqp_0_8 import LAYOUTS_BY_SIGNATURE, LAYOUTS_BY_TYPE
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.constants import HEADERS_0_8, PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.events import HEADER, METHOD, VIOLATION
from rabbitry.amqp.protocol.layouts import BY_SIGNATURE, BY_TYPE
from rabbitry.amqp.protocol.methods import (
    BasicConsume,
    BasicNack,
    ChannelOpen,
    ChannelOpenOk,
    ConfirmSelect,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    Method,
)
from rabbitry.amqp.protocol.states import ConnectionState
from rabbitry.exceptions import ProtocolViolation


def _frame(channel: int, method: Method) -> bytes:
    payload = encode_method(method, LAYOUTS_BY_TYPE)
    return b"\x01" + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def _open(header: bytes) -> Connection:
    """A broker's core with an open connection of 0-8 and an open channel."""
    core = Connection(Role.BROKER, frame_max=4096, channel_max=10, max_body_size=1000)
    assert core.receive(header) == [(HEADER, 0, header)]
    core.send_method(0, ConnectionStart(8, 0))
    for method, answer in (
        (ConnectionStartOk(), ConnectionTune(10, 4096, 0)),
        (ConnectionTuneOk(10, 4096, 0), None),
        (ConnectionOpen(), ConnectionOpenOk()),
    ):
        assert core.receive(_frame(0, method)) == [(METHOD, 0, method)]
        if answer is not None:
            core.send_method(0, answer)
    assert core.receive(_frame(1, ChannelOpen())) == [(METHOD, 1, ChannelOpen())]
    assert core.send_method(1, ChannelOpenOk()) == b"\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x0b\xce"
    return core


@pytest.mark.parametrize("header", HEADERS_0_8)
def test_a_client_consumes_and_closes_by_the_numbers_of_0_8(header: bytes) -> None:
    core = _open(header)
    consume = b"\x01\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x14" + b"\x00\x00\x04proc\x01t\x02" + b"\xce"
    assert core.receive(consume) == [(METHOD, 1, BasicConsume("proc", "t", no_ack=True))]
    close = b"\x01\x00\x00\x00\x00\x00\x0b\x00\x0a\x00\x3c" + bytes(7) + b"\xce"
    assert core.receive(close) == [(METHOD, 0, ConnectionClose())]
    assert core.send_method(0, ConnectionCloseOk()) == b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x3d\xce"


def test_after_our_close_only_close_ok_of_0_8_is_accepted() -> None:
    core = _open(HEADERS_0_8[0])
    assert core.send_method(0, ConnectionClose(320, "bye"))[7:11] == b"\x00\x0a\x00\x3c"
    assert core.receive(_frame(1, BasicConsume("q"))) == []
    assert core.receive(_frame(0, ConnectionCloseOk())) == [(METHOD, 0, ConnectionCloseOk())]
    assert core.state is ConnectionState.CLOSED


@pytest.mark.parametrize("method", [BasicNack(1), ConfirmSelect()])
def test_methods_added_after_0_8_are_unknown(method: Method) -> None:
    core = _open(HEADERS_0_8[1])
    payload = encode_method(method)
    (event,) = core.receive(b"\x01\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce")
    assert event[0] == VIOLATION
    assert event[2].reply_code == 540


def test_basic_consume_of_0_8_has_no_arguments() -> None:
    with pytest.raises(ProtocolViolation, match="cannot decode <<0,0,2,113,56,0,0,0,0,0,0>>"):
        decode_method(b"\x00\x3c\x00\x14\x00\x00\x02q8\x00\x00\x00\x00\x00\x00", LAYOUTS_BY_SIGNATURE)


def test_all_other_methods_are_encoded_as_in_0_9_1() -> None:
    changed = {ConnectionClose, ConnectionCloseOk, ChannelOpenOk, BasicConsume}
    assert {kind for kind, layout in LAYOUTS_BY_TYPE.items() if layout != BY_TYPE[kind]} == changed
    assert len(LAYOUTS_BY_SIGNATURE) == len(LAYOUTS_BY_TYPE)
    assert BY_SIGNATURE[10 << 16 | 50].make is ConnectionClose


def test_a_client_of_0_9_1_is_not_treated_as_0_8() -> None:
    core = Connection(Role.BROKER, frame_max=4096, channel_max=10, max_body_size=1000)
    core.receive(PROTOCOL_HEADER)
    assert not core.is_0_8
