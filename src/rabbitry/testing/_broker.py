"""The embedded broker for tests. It runs in a thread with its own event loop, so that any client can use it."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from rabbitry.broker import Broker, BrokerConfig

_DEADLINE: Final = 60.0
_CLOSE_TIMEOUT: Final = 0.1


class RunningBroker:
    """An empty broker for one test, in memory, on a free port of 127.0.0.1. A context manager that can be entered once.

    The broker starts in less than a millisecond. It runs in a thread with its own event loop, so blocking clients can
    use it, and the event loop of the test is not affected. Leaving the block closes the broker: clients that are still
    connected get a Close (320), and are disconnected a tenth of a second later. Errors of the broker itself (a callback
    or task of its loop that failed) are then raised as one group.

    Args:
        debug: asyncio's debug mode for the broker's loop; None leaves it to Python (-X dev, PYTHONASYNCIODEBUG).
    """

    url: str
    """AMQP URL of its virtual host "/", with the login guest:guest."""
    host: str
    port: int

    def __init__(self, *, debug: bool | None = None) -> None:
        self._debug = debug
        self._started: Future[tuple[Broker, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: a test that was interrupted must not keep its process.
        self._thread = threading.Thread(target=self._run, name="rabbitry-broker", daemon=True)
        self._failures: list[BaseException] = []

    def __enter__(self) -> Self:
        """Start the broker. Raises OSError if no port is free."""
        self._thread.start()
        self._broker, self._loop, self._ended = self._started.result(_DEADLINE)
        self.url, self.host, self.port = self._broker.url, self._broker.host, self._broker.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_DEADLINE)
        if self._thread.is_alive():
            raise TimeoutError(f"the embedded broker did not close within {_DEADLINE:g} s")
        if self._failures:
            raise BaseExceptionGroup("the embedded broker's event loop", self._failures)

    @property
    def management_url(self) -> str:
        """URL of the management API (login guest:guest). The API starts when the URL is first read."""
        asking = asyncio.run_coroutine_threadsafe(self._manage(), self._loop)
        return asking.result(_DEADLINE)

    async def _manage(self) -> str:
        if self._broker.management_port is None:
            await self._broker.start_management()
        return self._broker.management_url

    def _run(self) -> None:
        try:
            asyncio.run(self._serve(), debug=self._debug)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            if self._started.done():
                self._failures.append(error)
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        ended = asyncio.Event()
        # The memory of this process is mostly the tests', and the machine's share is for a broker of its own process.
        async with Broker(
            BrokerConfig(host="127.0.0.1", port=0, memory_limit=sys.maxsize, close_timeout=_CLOSE_TIMEOUT)
        ) as broker:
            self._started.set_result((broker, loop, ended))
            await ended.wait()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._failures.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))
