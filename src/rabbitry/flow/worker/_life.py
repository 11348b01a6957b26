"""Lifespans, and dependencies of scope "worker": set up when a worker starts, cleaned up when it stops."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Hashable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from rabbitry.flow.worker._dependencies import Given, set_up_async

if TYPE_CHECKING:
    from rabbitry.flow._plan import Plan, Provider

_CANCELLING: Final = 1.0
"""Seconds that a clean-up has to end once it is cancelled."""

_logger = logging.getLogger(__name__)


class Life:
    """Sets up lifespans and worker dependencies, and cleans them up, in one task, as task groups and timeouts require.

    instances: the dependencies, by key, once set up. failure: the error of a clean-up, or of a lifespan that ended
    before `stop`, which is also reported to `failed`.
    """

    def __init__(self, app: str, plans: Iterable[Plan], failed: Callable[[Exception], None]) -> None:
        self.instances: dict[Hashable, object] = {}
        self.failure: Exception | None = None
        self._app = app
        self._providers: dict[Hashable, Provider] = {}
        for plan in plans:
            for provider in plan.of_scope("worker"):
                self._providers.setdefault(provider.key, provider)
        self._failed = failed
        self._begun: asyncio.Future[None] | None = None
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, context: contextvars.Context) -> None:
        """Set up within `context`. Raises DependencyFailed. If cancelled, it is cleaned up by `stop`."""
        if not self._providers:
            return
        self._begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(self._begun), name=f"life of {self._app}", context=context)
        await asyncio.shield(self._begun)

    async def stop(self, seconds: float) -> None:
        """Clean up within `seconds`; a clean-up that takes longer is cancelled and logged. Errors are logged too."""
        task = self._task
        if task is None:
            return
        if self._begun is not None and not self._begun.done():
            task.cancel()  # in the middle of the set-up
        self._end.set()
        done, _ = await asyncio.wait((task,), timeout=seconds)
        if not done:
            _logger.error("%s: the clean-up of its lifespans is not done after %.1f s: cancelled", self._app, seconds)
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCELLING)

    async def _run(self, begun: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                given = Given({})
                await set_up_async(tuple(self._providers.values()), given, stack)
                self.instances.update(given.instances)
                begun.set_result(None)
                await self._end.wait()
        except BaseException as error:  # noqa: BLE001 - raised by `start`, or reported to the worker
            self._on_error(begun, error)

    def _on_error(self, begun: asyncio.Future[None], error: BaseException) -> None:
        told = error if isinstance(error, Exception) else RuntimeError(f"a lifespan ended with {error!r}")
        if not begun.done():
            begun.set_exception(told)
            begun.exception()  # nobody has to wait for it
            return
        if isinstance(error, asyncio.CancelledError) and self._end.is_set():
            return  # by `stop`, which has logged it
        self.failure = told
        if self._end.is_set():
            _logger.error("%s: cleaning up failed: %s", self._app, told, exc_info=told)
        else:
            self._failed(told)
