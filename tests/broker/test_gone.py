"""Disconnected clients leave nothing in memory, whether they closed their connection or vanished."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from rabbitry.amqp.protocol.methods import ConfirmSelect, ExchangeDeclare, QueueBind, TxSelect
from rabbitry.broker import Broker, BrokerConfig
from tests.differential.peer import Peer
from tests.support.waiting import eventually

_SESSIONS = 10


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Turn the garbage collector off, so that objects in reference cycles stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _session(url: str, number: int) -> None:
    """Log in, declare, publish, consume without settling, publish in a transaction, and vanish or close."""
    with Peer(url) as peer:
        peer.queue(f"q{number}", exclusive=True)
        peer.call(ExchangeDeclare(exchange=f"x{number}", type="topic", auto_delete=True))
        peer.call(QueueBind(queue=f"q{number}", exchange=f"x{number}", routing_key="a.#"))
        peer.call(ConfirmSelect())
        peer.publish(f"x{number}", "a.b", b"unsettled")
        peer.consume(f"q{number}", no_ack=False)
        peer.open(2)
        peer.call(TxSelect(), channel=2)
        peer.publish("", f"q{number}", b"uncommitted", channel=2)
        if number % 2:
            peer.drop()


def _note(broker: Broker, kept: weakref.WeakSet[object]) -> None:
    for connection in broker.connections:
        kept |= {connection, connection.driver, *connection.channels.values(), *connection.exclusive_queues}


@pytest.mark.usefixtures("without_collector")
async def test_a_disconnected_client_leaves_no_object_behind() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        vhost = broker.vhosts["/"]
        exchanges = set(vhost.exchanges)
        kept: weakref.WeakSet[object] = weakref.WeakSet()
        for number in range(_SESSIONS):
            session = asyncio.create_task(asyncio.to_thread(_session, broker.url, number))
            while not session.done():
                _note(broker, kept)
                await asyncio.sleep(0)
            await session
            del session
        await eventually(lambda: not broker.connections, "all of them are gone")
        await eventually(lambda: not list(kept), "their connections, channels and queues are freed")
        assert not vhost.queues
        assert set(vhost.exchanges) == exchanges
        assert broker.acceptor.without_login == 0
