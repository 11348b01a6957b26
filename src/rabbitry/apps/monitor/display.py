"""Showing statistics as plain lines, JSON lines, or a table that updates in place."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from rabbitry.apps.monitor.client import Show
from rabbitry.apps.monitor.decode import printable
from rabbitry.apps.monitor.statistics import Counts, HostSeries, Series, Summary
from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.tasks import background

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

REFRESH = 0.5
"""Seconds between two drawings of the table."""
_COLUMNS = {
    "now": "current",
    "low": "low",
    "high": "high",
    "mean": "mean",
    "σ": "stddev",
    "50 %": "p50",
    "95 %": "p95",
}


def plain_sample(key: str, host: HostSeries) -> str:
    """Return the current, highest and lowest value of each quantity, a line each, with the contract's units."""
    lines = [f"cpu {_range(host.cpu)}"]
    for name in host.latest:
        rx, tx = host.net[name]
        lines += [f"{printable(name)} rx {_range(rx, ' B/s')}", f"{printable(name)} tx {_range(tx, ' B/s')}"]
    return "".join(f"{printable(key)} {line}\n" for line in lines)


def plain_summary(counts: Counts) -> str:
    """Return all statistics, a line for each quantity."""
    lines = [f"summary: {totals(counts)}"]
    for key, quantity, _, summary in _quantities(counts):
        numbers = " ".join(f"{name} {_plain(value)}" for name, value in msgspec.structs.asdict(summary).items())
        lines.append(f"{key} {quantity} {numbers}")
    return "".join(f"{line}\n" for line in lines)


def json_sample(key: str, host: HostSeries) -> str:
    """Return the statistics of the latest sample's quantities: one JSON object on a line."""
    return _json({"type": "sample", "routing_key": key, **_as_dict(host, host.latest)})


def json_summary(counts: Counts) -> str:
    """Return all statistics: one JSON object on a line."""
    hosts = {key: _as_dict(host, list(host.net)) for key, host in sorted(counts.hosts.items())}
    return _json({"type": "summary", "messages": counts.counted, "skipped": counts.skipped, "hosts": hosts})


def totals(counts: Counts) -> str:
    """Return the totals in words."""
    return f"samples {counts.counted}, routing keys {len(counts.hosts)}, messages skipped {counts.skipped}"


def table(counts: Counts) -> Table:
    """Return all statistics as a table for people: percentages, and bytes a second with their prefixes."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(caption=totals(counts), caption_justify="left")
    shown.add_column("host", overflow="fold")
    shown.add_column("quantity", overflow="fold")
    for title in _COLUMNS:
        shown.add_column(title, justify="right", no_wrap=True)
    before = None
    for key, quantity, unit, summary in _quantities(counts):
        if before is not None and key != before:
            shown.add_section()
        values = (getattr(summary, name) for name in _COLUMNS.values())
        # Text, not str: names from the wire are no markup.
        shown.add_row(
            Text("" if key == before else key), Text(quantity), *(_for_people(value, unit) for value in values)
        )
        before = key
    return shown


@asynccontextmanager
async def display(counts: Counts, *, as_json: bool) -> AsyncIterator[Show]:
    """Show statistics on stdout while the block runs, and a summary at its end. Yield the function that shows a sample.

    The output is JSON lines, a table if stdout is a terminal, or plain lines.

    Raises:
        BrokenPipeError: Nobody reads stdout any more.
    """
    if not as_json and sys.stdout.isatty():
        async with _live_table(counts):
            yield _nothing
        return
    of_sample, of_all = (json_sample, json_summary) if as_json else (plain_sample, plain_summary)
    # A pipe can be full for as long as its reader likes. One thread, so that what is printed keeps its order
    # when somebody gave up waiting for it.
    printer = ThreadPoolExecutor(1, "stdout")
    loop = asyncio.get_running_loop()

    async def show(key: str, host: HostSeries) -> None:
        writing = loop.run_in_executor(printer, _write, of_sample(key, host))
        try:
            await asyncio.shield(writing)  # what is counted is shown, whenever the counting is stopped
        except asyncio.CancelledError:
            writing.add_done_callback(lambda written: written.exception())  # the summary after it meets that error too
            raise

    try:
        yield show
    except RabbitryError:
        if counts.counted:
            await loop.run_in_executor(printer, _write, of_all(counts))
        raise
    else:
        await loop.run_in_executor(printer, _write, of_all(counts))
    finally:
        printer.shutdown(wait=False)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def _nothing(key: str, host: HostSeries) -> None:
    """Do nothing: the table is redrawn by a timer, not for each sample."""


@asynccontextmanager
async def _live_table(counts: Counts) -> AsyncIterator[None]:
    from rich.live import Live

    with Live(table(counts), auto_refresh=False) as live, _log_above_the_table():
        async with background(_draw(live, counts)):
            yield
        live.update(table(counts), refresh=True)


async def _draw(live: Live, counts: Counts) -> None:
    while True:
        await asyncio.sleep(REFRESH)
        live.update(table(counts))
        await asyncio.to_thread(live.refresh)  # a terminal can be stopped for as long as its user likes


@contextmanager
def _log_above_the_table() -> Iterator[None]:
    """Make the log's handlers write to Rich's sys.stderr, so that log lines appear above the table."""
    moved = [
        (handler, handler.stream)
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream.isatty()
    ]
    for handler, _ in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)


def _quantities(counts: Counts) -> Iterator[tuple[str, str, str, Summary]]:
    """Yield for each counted quantity: routing key, quantity, unit (nothing for a fraction), statistics."""
    for key, host in sorted(counts.hosts.items()):
        yield printable(key), "cpu", "", host.cpu.summary()
        for name, (rx, tx) in sorted(host.net.items()):
            yield printable(key), f"{printable(name)} rx", "B/s", rx.summary()
            yield printable(key), f"{printable(name)} tx", "B/s", tx.summary()


def _range(series: Series, unit: str = "") -> str:
    current, high, low = _plain(series.current), _plain(series.high), _plain(series.low)
    return f"{current}{unit} high {high}{unit} low {low}{unit}"


def _plain(value: float) -> str:
    """Format a number with at most four decimals and no exponent."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _for_people(value: float, unit: str) -> str:
    if not unit:
        return f"{100 * value:.1f} %"
    prefix = ""
    for larger in "kMGT":
        if value < 999.5:
            break
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}{unit}"


def _as_dict(host: HostSeries, interfaces: Sequence[str]) -> dict[str, Any]:
    net = {
        name: {
            direction: msgspec.structs.asdict(series.summary())
            for direction, series in zip(("rx", "tx"), host.net[name], strict=True)
        }
        for name in interfaces
    }
    return {"cpu": msgspec.structs.asdict(host.cpu.summary()), "net": net}


def _json(data: dict[str, Any]) -> str:
    # ASCII: no control character beyond the C0 ones, which JSON escapes, gets through to a terminal either.
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n"
