"""Connections that the broker closes while the client still sends: the reason must arrive instead of a TCP reset."""

from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.methods import Method
from tests.differential.peer import CAPABILITIES, Peer
from tests.differential.registry import add, case, of

_MESSAGES: Final = 64
_SIZE: Final = 1 << 16


def _go_on_sending(peer: Peer) -> None:
    """Send some megabytes of messages, as a client that has not read the close yet; then read the answers."""
    for _ in range(_MESSAGES):
        peer.publish("", "nowhere", bytes(_SIZE))
    peer.quiet()


def _refused(method: Method, peer: Peer) -> None:
    peer.send(method)
    _go_on_sending(peer)


@case
def closing_while_sending(peer: Peer) -> None:
    peer.send(m.ConnectionClose(200, "bye"), 0)
    _go_on_sending(peer)


@case
def closing_in_the_middle_of_a_message(peer: Peer) -> None:
    peer.send(m.BasicPublish("", "nowhere"))
    peer.send(m.ConnectionClose(200, "bye"), 0)
    _go_on_sending(peer)


for _name, _method in (
    ("immediate", m.BasicGet("nowhere")),
    ("unknown_exchange_type", m.ExchangeDeclare("e", "of-no-type")),
    ("prefetch_size", m.BasicQos(prefetch_size=1)),
):
    add(f"closed_while_sending_{_name}", of(_refused, _method))


@case
def closed_while_sending_to_a_virtual_host_that_is_missing(peer: Peer) -> None:
    with Peer(peer.url, log_in=False, patience=peer.patience) as other:
        other.raw(PROTOCOL_HEADER)
        other.call_on(0, None)
        other.send(m.ConnectionStartOk({"capabilities": CAPABILITIES}, "PLAIN", b"\0guest\0guest", "en_US"), 0)
        other.call_on(0, None)
        other.send(m.ConnectionTuneOk(2047, 131072, 0), 0)
        other.send(m.ConnectionOpen("missing"), 0)
        _go_on_sending(other)
    peer.log += other.log
