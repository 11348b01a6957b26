"""The CPU time of a crawl's messages alone: the roles as they are, but without fetching, reading and deciding.

The crawler has a page at once, the processor a document of as many links, and the keeper does nothing with either. The
rest is AMQP, workers, batches and the crawler's manners.
"""

import asyncio
import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Final

from tests.support.crawling import Crawl
from tests.support.embedded import BrokerProcess
from tests.support.pages import SITE_A, SITE_B
from tests.support.sites import SitesProcess
from tests.support.waiting import eventually_blocking

from benchmarks.crawl_parts import Row
from benchmarks.crawl_parts.crawling import publish
from benchmarks.crawl_parts.processes import cpu_seconds

_PAGES: Final = 5_000
_HOSTS: Final = 50
_ROUNDS: Final = 3
_PACKED: Final = {"A": 22_500, "B": 11_500}
"""Bytes of a compressed page."""
_ROLES: Final = ("broker", "crawler", "processor", "keeper")
_WITHOUT_WORK: Final = """
import asyncio, random, time
from pathlib import Path
import msgspec
from rabbitry.apps.crawl.crawler import fetching
from rabbitry.apps.crawl.keeper import role
from rabbitry.apps.crawl.messages import Link
from rabbitry.apps.crawl.processor import stage
from rabbitry.flow import Batch, Message, Outgoing

BODY = random.Random(1).randbytes({size})
LINKS = [Link(f"http://127.1.0.1:8000/p/{{number}}") for number in range({links})]
HEADERS = {{"content-type": "text/html; charset=utf-8"}}
done = 0

async def fetch(self, address, batch, host):
    return fetching.Page(
        address.url, address.url, "page", 200, BODY, HEADERS["content-type"], HEADERS, time.time(), 26000, 26000, 0.01)

def documents(page, packed, message, begun):
    yield msgspec.structs.replace(begun, title="A title of four words", language="en", links=LINKS)

async def keep(self, bodies: list[bytes], messages: list[Message], batch: Batch) -> list[Outgoing]:
    global done
    done += sum(message.type == "Document" for message in messages)
    Path(__file__).with_name("done").write_text(str(done))
    if len(messages) < role.AT_ONCE:
        await asyncio.sleep(role.GATHERING)
    return []

fetching.Fetcher.fetch = fetch
stage._documents = documents
role.Role.keep = keep
"""
"""Injected into each process of the crawl."""


def carrying(share: float) -> list[Row]:
    """Measure the messages of a page of sites A and B."""
    rows = []
    for name, site in (("A", SITE_A), ("B", SITE_B)):
        rounds = [_costs(int(_PAGES * share), _PACKED[name], site.links) for _ in range(_ROUNDS if share == 1 else 1)]
        costs = {role: statistics.median(one[role] for one in rounds) for role in _ROLES}
        parts = ", ".join(f"{cost:.2f}" for cost in costs.values())
        rows.append(Row(f"{name}: messages alone, CPU a page, ms", f"{sum(costs.values()):.2f}"))
        rows.append(Row(f"… of these {', '.join(_ROLES)}", parts))
    return rows


def _costs(count: int, size: int, links: int) -> dict[str, float]:
    """Return the milliseconds of CPU for a page by role."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "sitecustomize.py").write_text(_WITHOUT_WORK.format(size=size, links=links))
        sites = stack.enter_context(SitesProcess(SITE_B, _HOSTS))  # for its addresses
        broker = stack.enter_context(BrokerProcess("--log-level", "error", anew=True))
        crawl = stack.enter_context(Crawl(broker.url, folder, more={"PYTHONPATH": str(folder)}, anew=True))
        crawl.start_all()
        crawl.ready()
        pids = {"broker": broker.pid} | {role: one.process.pid for one, role in crawl.running.items()}

        def crawled(pages: int) -> None:
            asyncio.run(publish(broker.url, sites, pages))
            eventually_blocking(lambda: _done(folder) >= wanted, f"{wanted} documents", within=300)

        wanted = max(100, count // 10)
        crawled(wanted)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        wanted += count
        crawled(count)
        assert not sites.count, "a page was fetched"
        return {name: (cpu_seconds(pid) - before[name]) * 1000 / count for name, pid in pids.items()}


def _done(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):  # a keeper may just be writing it
        return int((folder / "done").read_text())
    return 0
