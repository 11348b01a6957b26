"""A management API that fails: it is in the log at once, the broker goes on without it and closes in order."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import rabbitry
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.management.rates import Rates
from rabbitry.broker.management.server import ManagementServer
from rabbitry.exceptions import UsageError
from tests.support.waiting import eventually

_MODULE = "rabbitry.broker.management.server"


class _Exiting(ModuleType):
    """A module that ends the program where something is taken from it, as uvicorn does."""

    @property
    def ManagementServer(self) -> object:  # noqa: N802 # the name of the class that it stands for
        sys.exit(3)


def _not_imported(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, _MODULE, None)


def _without_its_class(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, _MODULE, ModuleType(_MODULE))


def _exiting(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, _MODULE, _Exiting(_MODULE))


def _not_started(patch: pytest.MonkeyPatch) -> None:
    start = ManagementServer.start

    async def broken(server: ManagementServer) -> None:
        await start(server)
        raise RuntimeError("broken")

    patch.setattr(ManagementServer, "start", broken)


async def _keep_a_message(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
        await channel.declare_queue("kept", durable=True)
        await channel.publish(b"1", routing_key="kept", properties=Properties(delivery_mode=2))


async def _is_kept(folder: Path) -> bool:
    """Whether a broker starts on the folder, which the last one therefore let go of, and has the message."""
    async with Broker(BrokerConfig(port=0, data=folder)) as broker:
        return len(broker.vhosts["/"].queues["kept"]) == 1


@pytest.mark.parametrize("breaks", [_not_imported, _without_its_class, _exiting, _not_started])
async def test_the_broker_runs_and_closes_without_a_management_api_that_can_t_be_loaded(
    breaks: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    breaks(monkeypatch)
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        port = broker.management_port
        await eventually(lambda: "the management API can't be loaded" in caplog.text, "a line in the log")
        await _keep_a_message(broker)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(UsageError, match="could not load it"):
            _ = broker.management_url
    assert not broker.connections
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", broker.port)
    assert await _is_kept(tmp_path)


async def test_the_broker_closes_in_order_where_the_management_api_fails_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker = Broker(BrokerConfig(port=0, management_port=0, data=tmp_path))
    stop = Rates.stop

    async def broken(rates: Rates) -> None:
        await stop(rates)
        raise RuntimeError("broken")

    async def run() -> None:
        async with broker:
            await _keep_a_message(broker)
            monkeypatch.setattr(Rates, "stop", broken)

    with pytest.raises(RuntimeError, match="broken"):
        await run()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", broker.port)
    assert await _is_kept(tmp_path)


@pytest.mark.parametrize("taken_by", ["its_amqp_port", "another_program"])
async def test_a_broker_whose_management_port_is_taken_does_not_start(taken_by: str, tmp_path: Path) -> None:
    amqp, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    with amqp, other:
        port = (amqp if taken_by == "its_amqp_port" else other).getsockname()[1]
        broker = Broker(BrokerConfig(listeners=[amqp], management_port=port, data=tmp_path))
        with pytest.raises(OSError, match=str(port)):
            async with broker:
                pass
        assert amqp.fileno() == -1, "it listens no more"
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        pass  # nobody has its folder
