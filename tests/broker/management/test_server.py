"""The broker with a management API that fails to load or to stop."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rabbitry.broker import Broker, BrokerConfig, ManagementFailed
from rabbitry.broker._management.rates import Rates
from rabbitry.broker._management.server import ManagementServer
from rabbitry.exceptions import UsageError
from tests.broker.starting import is_kept, keep_a_message, settings
from tests.support.leaks import no_leaks_in_block

_MODULE = "rabbitry.broker._management.server"


class _Exiting(ModuleType):
    """A module that exits the program when a name is imported from it, as uvicorn does."""

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


_BREAKS = pytest.mark.parametrize("breaks", [_not_imported, _without_its_class, _exiting, _not_started])


@_BREAKS
async def test_a_broker_does_not_start_if_its_management_api_fails_to_load(
    breaks: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await keep_a_message(tmp_path)
    breaks(monkeypatch)
    async with no_leaks_in_block():
        broker = Broker(settings(tmp_path))
        with pytest.raises(ManagementFailed, match=r"^can't load the management API .*--no-management") as failed:
            await broker.__aenter__()
        assert failed.value.__cause__ is not None
        assert broker.management_port is None
    assert await is_kept(tmp_path)


@_BREAKS
async def test_a_running_broker_survives_a_failed_management_load(
    breaks: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    breaks(monkeypatch)
    async with no_leaks_in_block(), Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(ManagementFailed):
            await broker.start_management([listener])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(UsageError, match="has no management API"):
            _ = broker.management_url
        await keep_a_message(broker)
    assert await is_kept(tmp_path)


async def test_the_broker_closes_in_order_if_the_management_api_fails_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker = Broker(BrokerConfig(port=0, management_port=0, data=tmp_path))
    stop = Rates.stop

    async def broken(rates: Rates) -> None:
        await stop(rates)
        raise RuntimeError("broken")

    async def run() -> None:
        async with broker:
            await keep_a_message(broker)
            monkeypatch.setattr(Rates, "stop", broken)

    async with no_leaks_in_block():
        with pytest.raises(RuntimeError, match="broken"):
            await run()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", broker.port)
    assert await is_kept(tmp_path)
