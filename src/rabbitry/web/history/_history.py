"""The history of numbers: the last hour by the second, a week by the minute, in SQLite beside the apps' records.

Numbers wait in memory until a thread writes them, every 10 s: SIGKILL loses no more. If several dashboards of one
broker share the file, the one that holds the lease of that broker writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from rabbitry.apps.exceptions import RecordsError
from rabbitry.web.history._blocks import NOTHING, POINTS, Block, Chart, Series, Span, merged
from rabbitry.web.history._store import Store

FLUSH: Final = 10.0
"""Seconds between two writes."""
MOST_SERIES: Final = 8000
"""Series that are recorded at a time; 1,000 of them take 60 MiB on disk."""
_KEPT: Final = 120
"""Seconds of numbers that are kept in memory while they can't be written."""
_LARGEST: Final = 1e30

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class History:
    """The history of the numbers that one dashboard shows. It records while `running` is entered.

    Args:
        file: The SQLite file, which may be shared with other dashboards.
        broker: The broker that the numbers are about, without its password.
        clock: Returns Unix seconds.
    """

    def __init__(self, file: Path, broker: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._store = Store(file, broker)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._pending: dict[tuple[Series, int], Block] = {}
        self._is_running = False
        self._problem = ""

    def record(self, app: str, subject: str, numbers: Mapping[str, float | None]) -> None:
        """Keep numbers of this second; a later one of the same second and name replaces an earlier one.

        Args:
            app: Their origin: a plug-in's name, or `broker`.
            subject: The id of the thing that they describe; empty for the broker.
            numbers: Name → number; None, infinity and NaN are left out.
        """
        if not self._is_running:
            return
        now = int(self._clock())
        place = now % POINTS
        for name, number in numbers.items():
            if number is None or not abs(number) <= _LARGEST:
                continue
            key = Series(app, subject, name), now - place
            block = self._pending.get(key)
            if block is None:
                if len(self._pending) >= 2 * MOST_SERIES:
                    self._tell(f"more than {MOST_SERIES} series: some are not recorded")
                    return
                block = self._pending[key] = array("f", NOTHING)
            block[place] = number

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write recorded numbers while the block runs, and the rest at its end."""
        self._is_running = True
        stop = asyncio.Event()
        writing = asyncio.create_task(self._write_until(stop), name="history")
        try:
            yield
        finally:
            self._is_running = False
            stop.set()
            await writing
            await self._do(self._store.close)
            self._thread.shutdown(wait=False)

    async def chart(self, app: str, subject: str, span: Span) -> Chart:
        """Return all series of a thing over the last hour or week.

        Args:
            app: As for `record`.
            subject: As for `record`.
            span: The time that is charted.

        Raises:
            RecordsError: The file can't be used.
        """
        await self.flush()
        return await self._do(lambda: self._store.chart(app, subject, span, int(self._clock())))

    async def series(self) -> Sequence[Series]:
        """Return the series that have numbers of the last week. Raises RecordsError."""
        await self.flush()
        return await self._do(self._store.series)

    async def flush(self) -> None:
        """Write the pending numbers.

        They stay pending, for two minutes at most, if another dashboard writes or the disk fails.
        """
        taken, self._pending = self._pending, {}
        if not taken:
            return
        now = self._clock()
        try:
            written = await self._do(lambda: self._store.write(taken, now))
            self._problem = ""
        except RecordsError as error:
            self._tell(str(error))
            written = False
        except BaseException:  # cancelled: writing numbers once more changes nothing
            self._put_back(taken, now)
            raise
        if not written:
            self._put_back(taken, now)

    def _put_back(self, taken: Mapping[tuple[Series, int], Block], now: float) -> None:
        for key, block in taken.items():
            if key[1] >= now - _KEPT and len(self._pending) < 2 * MOST_SERIES:
                newer = self._pending.get(key)
                self._pending[key] = block if newer is None else merged(block, newer)

    async def _write_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), FLUSH)
            await self.flush()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            _logger.warning("history: %s", problem)
        self._problem = problem
