"""The dashboard on a large broker: `make bench-dashboard`. Writes the table in docs/performance.md.

`make bench-dashboard ARGS="rows nodes"` measures some parts and writes nothing; `--quick` is short, and `--minutes 60`
watches the server's memory for an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks._docs import write_table
from benchmarks.dashboard_parts import history, pages, payloads, replaying, watching
from benchmarks.dashboard_parts.scene import Row, Scene, scene

PARTS: Final[dict[str, Callable[[Scene], Awaitable[None]]]] = {
    "watching": watching.measure_watching,
    "metrics": watching.measure_metrics,
    "page": pages.measure_page,
    "rows": pages.measure_rows,
    "nodes": pages.measure_nodes,
    "payloads": payloads.measure_payloads,
    "history": history.measure_history,
    "replay": replaying.measure_replay,
    "memory": watching.measure_memory,
}
_QUICK: Final[dict[str, int | float]] = {
    "seconds": 3, "minutes": 0.1, "machines": 50, "pages": 6, "nodes": 200, "letters": 2000, "series": 50,
}  # fmt: skip


async def _measure(parts: list[str], queues: int, more: dict[str, int | float]) -> tuple[list[Row], list[str]]:
    failed = []
    async with scene(queues, more) as made:
        for name in parts:
            began = time.perf_counter()
            try:
                await PARTS[name](made)
            except Exception as error:  # noqa: BLE001 - measure the other parts anyway
                failed.append(name)
                traceback.print_exc()
                made.add(f"{name}: not measured", type(error).__name__)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return made.rows, failed


def main() -> int:
    """Measure, print, and write the table if all of it was measured."""
    parser = argparse.ArgumentParser(description="The dashboard on a large broker.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="the parts to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="small amounts; write nothing")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to watch the memory (default: 1)")
    options = parser.parse_args()
    more = _QUICK if options.quick else {"minutes": options.minutes}
    rows, failed = asyncio.run(_measure(options.parts or [*PARTS], 500 if options.quick else 10_000, more))
    if not options.quick and not options.parts:
        lines = [f"Measured on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores.", ""]
        lines += ["| measure | found | to reach |", "|---|---|---|"]
        lines += [f"| {row.measure} | {row.found} | {row.target} |" for row in rows]
        write_table("bench-dashboard", "\n".join(lines))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
