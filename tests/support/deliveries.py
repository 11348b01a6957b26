"""One side of a connection with two open channels, in memory, and the frames of deliveries to it."""

from typing import Final

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.encoding import encode_method
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


def open_core(role: Role = Role.CLIENT) -> Connection:
    """Return one side of a connection with two open channels."""
    client, broker = (
        Connection(side, frame_max=_FRAME_MAX, channel_max=10, max_body_size=1 << 40)
        for side in (Role.CLIENT, Role.BROKER)
    )
    broker.receive(client.send_header())
    exchange: list[tuple[Connection, Connection, int, Method]] = [
        (broker, client, 0, ConnectionStart()),
        (client, broker, 0, ConnectionStartOk()),
        (broker, client, 0, ConnectionTune(10, _FRAME_MAX, 0)),
        (client, broker, 0, ConnectionTuneOk(10, _FRAME_MAX, 0)),
        (client, broker, 0, ConnectionOpen()),
        (broker, client, 0, ConnectionOpenOk()),
    ]
    for number in (1, 2):
        exchange += [(client, broker, number, ChannelOpen()), (broker, client, number, ChannelOpenOk())]
    for sender, receiver, channel, method in exchange:
        receiver.receive(sender.send_method(channel, method))
    core = client if role is Role.CLIENT else broker
    core.tuned(_FRAME_MAX, 10)
    return core


def delivery_frames(channel: int, size: int, limit: int = LIMIT) -> list[bytes]:
    """Return the frames of a delivery whose body of `size` bytes has no period of a frame's length."""
    body = (b"%d," % channel).join(b"%07d" % number for number in range(size // 9 + 1))[:size]
    deliver = hot.encode_method_frame(channel, encode_method(BasicDeliver("c", 1, False, "", "q")))
    return [deliver, *hot.content_frames(channel, encode_header(Properties(), size), body, limit)]
