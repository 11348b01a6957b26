"""Pages a second and core beside Scrapy and Crawlee."""

import dataclasses
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
_PAGES: Final = 3000
_PEERS_PAGES: Final = 1000


def beside(share: float) -> list[Row]:
    """Crawl A and B with each."""
    rows: list[Row] = []
    for name, site in (("A", SITE_A), ("B", SITE_B)):
        runs: dict[str, Run] = {}
        with SitesProcess(dataclasses.replace(site, hosts=_HOSTS), _HOSTS) as sites:
            for peer in PEERS:
                runs[peer] = measure(peer, sites.url("/p/0"), max(100, int(_PEERS_PAGES * share)))
            for who in (LINKS, OURS):
                runs[who] = ours(sites, int(_PAGES * share), links_only=who == LINKS)
        for who, run in runs.items():
            rows.append(Row(f"{name}: {who}, pages a second and core", f"{run.rate:,.0f}"))
            rows.append(Row(f"{name}: {who}, pages a second", f"{run.pages / run.seconds:,.0f}"))
        for who, target in ((LINKS, ">= 10"), (OURS, ">= 6" if name == "A" else "")):
            for peer in PEERS:
                times = runs[who].rate / runs[peer].rate
                rows.append(Row(f"{name}: {who}, times {peer}", f"{times:.1f}", target if peer == "Scrapy" else ""))
    return rows


def ours(sites: SitesProcess, count: int, *, links_only: bool) -> Run:
    """Crawl so many pages with all roles, a process each; their CPU and the broker's count, from `add` to the end."""
    with (
        tempfile.TemporaryDirectory() as folder,
        BrokerProcess("--log-level", "error") as broker,
        Crawl(broker.url, Path(folder)) as crawl,
    ):
        crawl.start_all()
        pids = [broker.pid, *(one.process.pid for one in crawl.running)]
        crawl.ready()
        cpu, began = cpu_seconds(*pids), time.perf_counter()
        crawl.add(sites.url("/p/0"), limit=count)
        crawl.settled(documents=count, within=600)
        run = Run(count, time.perf_counter() - began, cpu_seconds(*pids) - cpu)
        print({pid: round(cpu_seconds(pid), 2) for pid in pids}, links_only, flush=True)
    return run
