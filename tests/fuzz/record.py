"""Record the sessions of corpus/ with `.venv/bin/python -m tests.fuzz.record`.

corpus/broker/NAME.bin holds all bytes that a client sent: scripts of the differential suite, and conversations of pika
from tests/data. corpus/client/NAME.bin holds what a broker sent to the client of `session.py`, in steps (see
`replay.py`). Inputs that once did harm are added by hand, named after their content.
"""

import asyncio
from pathlib import Path
from typing import Final

from rabbitry.testing import RunningBroker
from tests import data
from tests.differential import (  # noqa: F401 - importing registers the scripts
    basic_cases,
    connection_cases,
    exchange_cases,
    limit_cases,
    publish_cases,
    queue_cases,
)
from tests.differential.peer import Peer
from tests.differential.registry import CASES
from tests.fuzz import replay
from tests.fuzz.session import session
from tests.support.proxy import FaultProxy, Way
from tests.support.rabbitmq import RabbitMQ

_FOLDER: Final = Path(__file__).parent / "corpus"
_EVERY: Final = 12
"""One of so many scripts of the differential suite is kept; neighbours differ only in a value."""
_LARGEST: Final = 4096


class _Recorder(Peer):
    sent = b""

    def raw(self, data: bytes) -> None:
        """Record the bytes, then send them."""
        self.sent += data
        super().raw(data)


def _record_broker() -> None:
    folder = _FOLDER / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    for name in list(CASES)[::_EVERY]:
        with RunningBroker() as broker, _Recorder(broker.url) as peer:
            CASES[name](peer)
        if len(peer.sent) <= _LARGEST:
            (folder / f"{name}.bin").write_bytes(peer.sent)
    for name in data.names():
        if len(data.load(name).client) <= _LARGEST:
            (folder / f"pika_{name}.bin").write_bytes(data.load(name).client)


async def _record_client(server: RabbitMQ) -> None:
    said: list[tuple[Way, bytes]] = []
    async with FaultProxy(server.port, tap=lambda way, part: said.append((way, part))) as proxy:
        failures = await session(f"amqp://guest:guest@127.0.0.1:{proxy.port}/")
    assert not failures, failures
    folder = _FOLDER / "client"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "session.bin").write_bytes(replay.encode([(way is Way.TO_SERVER, part) for way, part in said]))


def main() -> None:
    """Record all sessions anew."""
    _record_broker()
    with RabbitMQ() as server:
        asyncio.run(_record_client(server))


if __name__ == "__main__":
    main()
