"""Pages a second and core beside Scrapy and Crawlee."""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.crawling import Crawl
from tests.support.embedded import BrokerProcess
from tests.support.pages import SITE_A, SITE_B
from tests.support.sites import SitesProcess

from benchmarks.crawl_parts import Row
from benchmarks.crawl_parts.processes import cpu_seconds
from benchmarks.crawl_peers.running import PEERS, Run, measure

OURS: Final = "Rabbitry"
LINKS: Final = "Rabbitry, links only"
_HOSTS: Final = 8
_PAGES: Final = 10_000
"""Of ours: a host's first pages are fetched a few at a time (docs/crawl.md, Traps), and then as fast as it answers."""
_PEERS_PAGES: Final = 1000
_ROUNDS: Final = 3
WARM: Final = 0.1
_WITHIN: Final = 900.0
"""Seconds that a crawl may take for its first tenth of the pages, and for all others."""


def beside(share: float) -> list[Row]:
    """Crawl sites A and B with each crawler in turn; each figure is the median of the rounds."""
    rows: list[Row] = []
    for name, site in (("A", SITE_A), ("B", SITE_B)):
        runs: dict[str, list[Run]] = {who: [] for who in (*PEERS, LINKS, OURS)}
        costs: dict[str, list[dict[str, float]]] = {LINKS: [], OURS: []}
        with SitesProcess(dataclasses.replace(site, hosts=_HOSTS), _HOSTS) as sites:
            for _ in range(_ROUNDS if share == 1 else 1):
                for peer in PEERS:
                    runs[peer].append(measure(peer, sites.url("/p/0"), max(100, int(_PEERS_PAGES * share))))
                for who, measured in costs.items():
                    run, roles = ours(sites, int(_PAGES * share), links_only=who == LINKS)
                    runs[who].append(run)
                    measured.append(roles)
        rows += _rows(name, runs, costs)
    return rows


def _rows(site: str, runs: dict[str, list[Run]], costs: dict[str, list[dict[str, float]]]) -> list[Row]:
    rates = {who: statistics.median(run.rate for run in its) for who, its in runs.items()}
    rows = []
    for who, its in runs.items():
        rows.append(Row(f"{site}: {who}, pages a second and core", f"{rates[who]:,.0f}"))
        rows.append(
            Row(f"{site}: {who}, pages a second", f"{statistics.median(run.pages / run.seconds for run in its):,.0f}")
        )
    for who, measured in costs.items():
        roles = {role: statistics.median(cost[role] for cost in measured) for role in measured[0]}
        rows.append(
            Row(f"{site}: {who}, CPU a page, ms: {', '.join(roles)}", ", ".join(f"{one:.2f}" for one in roles.values()))
        )
    for who, target in ((LINKS, ">= 10"), (OURS, ">= 6" if site == "A" else "")):
        for peer in PEERS:
            times = rates[who] / rates[peer]
            rows.append(Row(f"{site}: {who}, times {peer}", f"{times:.1f}", target if peer == "Scrapy" else ""))
    return rows


_NO_TEXT: Final = """
import rabbitry.apps.crawl.processor.html as html
html.main_text = lambda *page: ""
"""
"""Injected into each process of a crawl of links only: it leaves no work for main text, fingerprint and index."""


def ours(sites: SitesProcess, count: int, *, links_only: bool) -> tuple[Run, dict[str, float]]:
    """Crawl `count` pages with all roles in separate processes, measured after the first tenth like the peers.

    Returns the run, and the milliseconds of CPU for each page by role.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        more = {}
        if links_only:
            (folder / "sitecustomize.py").write_text(_NO_TEXT)
            more["PYTHONPATH"] = str(folder)
        broker = stack.enter_context(BrokerProcess("--log-level", "error", anew=True))
        crawl = stack.enter_context(Crawl(broker.url, folder, more=more, anew=True))
        crawl.start_all()
        crawl.ready()
        pids = {"broker": broker.pid} | {role: one.process.pid for one, role in crawl.running.items()}
        crawl.add(sites.url("/p/0"))
        first = _documents(crawl, int(count * WARM))
        before, began = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.perf_counter()
        pages = _documents(crawl, count) - first
        seconds = time.perf_counter() - began
        cpu = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    roles = {name: cpu[name] / pages * 1000 for name in ("broker", "crawler", "processor", "keeper")}
    return Run(pages, seconds, sum(cpu.values())), roles


def _documents(crawl: Crawl, wanted: int) -> int:
    """Wait for `wanted` documents in the index. Return their number. Raises TimeoutError after _WITHIN seconds."""
    end = time.monotonic() + _WITHIN
    while (found := crawl.status().documents) < wanted:
        crawl.check()
        if time.monotonic() > end:
            raise TimeoutError(f"{found} of {wanted} documents after {_WITHIN:g} s")
        time.sleep(0.1)
    return found
