"""The HTTP server of the management API, on the broker's own event loop."""

import asyncio
import socket
from typing import TYPE_CHECKING

import uvicorn

from rabbitry.broker.management.app import make_app
from rabbitry.broker.management.pace import Pace
from rabbitry.broker.management.rates import Rates

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker

_STOP_TIMEOUT = 3


class ManagementServer:
    """Serves the management API of a broker on a socket that listens already."""

    def __init__(self, broker: "Broker", listener: socket.socket) -> None:
        pace = Pace()
        self._rates = Rates(broker, pace)
        config = uvicorn.Config(
            make_app(broker, self._rates, pace),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_STOP_TIMEOUT,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._rates.start()
        self._task = asyncio.create_task(self._serve(), name="management")

    async def _serve(self) -> None:
        # `serve` would take over the process's signals.
        await self._server._serve([self._listener])

    async def stop(self) -> None:
        """Finish what is in hand, within a few seconds, and stop."""
        await self._rates.stop()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listener.close()
