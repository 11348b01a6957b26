"""Crawlers, processors and a keeper beside Scrapy and Crawlee on the same local sites, in one run: `make bench-crawl`.

Site A has pages of 58 kB with 150 links, B of 26 kB with 30 links. Rabbitry's roles run as separate processes on the
embedded broker in memory, and all of them count: "pages a second and core" is pages for each second of CPU, of all
roles and the broker. Prints a line for each measure with its target, and writes the tables in docs/performance.md.
`make bench-crawl ARGS="beside memory"` measures some parts; `--quick` is short and writes nothing.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import psutil

from benchmarks._docs import write_table
from benchmarks.crawl_parts import Row, carrying, crawling, floor, keeping, looking, peers

PARTS: Final[dict[str, Callable[[float], list[Row]]]] = {
    "beside": peers.beside,
    "floor": floor.floor,
    "messages": carrying.carrying,
    "crawler": crawling.alone,
    "processors": crawling.processors,
    "memory": crawling.memory,
    "start": crawling.start,
    "slow-host": crawling.slow_host,
    "recrawl": crawling.recrawl,
    "seen": keeping.seen,
    "search": looking.search,
}


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="A crawl beside others.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="the parts to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of all amounts; write nothing")
    options = parser.parse_args()
    rows: list[Row] = []
    failed: list[str] = []
    for name in options.parts or PARTS:
        began = time.perf_counter()
        try:
            found = PARTS[name](0.1 if options.quick else 1.0)
        except Exception as error:  # noqa: BLE001 - measure the other parts anyway
            failed.append(name)
            traceback.print_exc()
            found = [Row(f"{name}: not measured", f"{type(error).__name__}")]
        for row in found:
            print(json.dumps(row.__dict__), flush=True)
            rows.append(row)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    if not options.quick and not options.parts:
        note = (
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {psutil.virtual_memory().total / (1 << 30):.0f} GiB"
        )
        lines = [f"| {row.measure} | {row.value} | {row.target} |" for row in rows]
        head = [f"Measured on {note}.", "", "| measure | value | to be reached |", "|---|---|---|"]
        write_table("bench-crawl", "\n".join([*head, *lines]))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
