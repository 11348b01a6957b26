"""Both sides of a connection in memory, and the frames of deliveries to it."""

from typing import Final

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.events import METHOD
from rabbitry.amqp.protocol.methods import (
    BasicDeliver,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    Method,
)
from rabbitry.amqp.protocol.properties import Properties, encode_header

_FRAME_MAX: Final = 131_072
LIMIT: Final = _FRAME_MAX - 8
"""The largest payload of a frame."""


def open_pair(
    *, channels: int = 1, frame_max: int = _FRAME_MAX, max_body_size: int = 1 << 40
) -> tuple[Connection, Connection]:
    """Return client and broker, whose connection and channels are open."""
    client, broker = (
        Connection(side, frame_max=frame_max, channel_max=10, max_body_size=max_body_size)
        for side in (Role.CLIENT, Role.BROKER)
    )
    broker.receive(client.send_header())
    exchange: list[tuple[Connection, Connection, int, Method]] = [
        (broker, client, 0, ConnectionStart()),
        (client, broker, 0, ConnectionStartOk()),
        (broker, client, 0, ConnectionTune(10, frame_max, 0)),
        (client, broker, 0, ConnectionTuneOk(10, frame_max, 0)),
        (client, broker, 0, ConnectionOpen()),
        (broker, client, 0, ConnectionOpenOk()),
    ]
    for number in range(1, channels + 1):
        exchange += [(client, broker, number, ChannelOpen()), (broker, client, number, ChannelOpenOk())]
    for sender, receiver, channel, method in exchange:
        assert receiver.receive(sender.send_method(channel, method)) == [(METHOD, channel, method)]
    return client, broker


def open_core(role: Role = Role.CLIENT) -> Connection:
    """Return one side of a connection with two open channels, as its driver has tuned it."""
    core = open_pair(channels=2)[0 if role is Role.CLIENT else 1]
    core.tuned(_FRAME_MAX, 10)
    return core


def delivery_frames(channel: int, size: int, limit: int = LIMIT) -> list[bytes]:
    """Return the frames of a delivery whose body of `size` bytes has no period of a frame's length."""
    body = (b"%d," % channel).join(b"%07d" % number for number in range(size // 9 + 1))[:size]
    deliver = hot.encode_method_frame(channel, encode_method(BasicDeliver("c", 1, False, "", "q")))
    return [deliver, *hot.content_frames(channel, encode_header(Properties(), size), body, limit)]


def fill(room: list[memoryview], data: bytes) -> int:
    """Read `data` into the memory that a core's `room` returned, as `os.readv` does, and return the number of bytes."""
    at = 0
    for part in room:
        piece = data[at : at + len(part)]
        part[: len(piece)] = piece
        at += len(piece)
    return at
