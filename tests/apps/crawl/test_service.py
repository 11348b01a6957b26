"""All roles of a crawl in one process, as `rabbitry crawl run` starts them."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from rabbitry.apps.crawl.answers import AskSearch, AskStatus, Found, Status
from rabbitry.apps.crawl.asking import Asking
from rabbitry.apps.crawl.messages import Add
from tests.support import pages
from tests.support.brokers import ON_EMBEDDED
from tests.support.commands import service
from tests.support.sites import Sites, host
from tests.support.waiting import eventually_awaited

PAGES = 30


@ON_EMBEDDED
async def test_all_roles_run_in_one_process(broker_url: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'crawl.sqlite3'}"
    arguments = ("crawl", "run", "--broker", broker_url, "--database", database, "--allow-private", "127.0.0.0/8")
    with Sites(pages.Graph(PAGES, links=4, hosts=3), hosts=3) as sites, service(*arguments) as running:
        await asyncio.to_thread(running.wait_for, "keeper [0-9a-f]+")
        async with Asking(broker_url) as asking:
            start = f"http://{host(0)}:{sites.port}/p/0"
            assert not (await asking.tell(Add([start], delay=0.0))).error

            async def done() -> bool:
                return (await asking.find(AskStatus(), Status)).documents == PAGES

            await eventually_awaited(done, "all pages are in the index", within=80)
            found = await asking.find(AskSearch(f"site:{host(1)}"), Found)
            assert found.total == PAGES / 3
        asked = [(entry.host, entry.target) for entry in sites.log.pages()]
        assert len(asked) == len(set(asked)) == PAGES
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 60) == 0, running.output
