"""Script payloads in every text that a message, a name or an error can carry, shown by each view."""

from __future__ import annotations

import asyncio
import json
from typing import Final
from urllib.parse import quote, urlencode

import httpx
from playwright.async_api import Page

import rabbitry
from benchmarks.dashboard_parts.scene import Scene, chromium
from rabbitry.amqp.client import Properties

PAYLOADS: Final = (
    "<script>ran(1)</script>",
    "<img src=x onerror=ran(2)>",
    '"><svg onload=ran(3)>',
    "'-ran(4)-'",
    "javascript:ran(5)",
    "</script><script>ran(6)</script>",
    "<iframe srcdoc='<script>parent.ran(7)</script>'>",
    "${ran(8)}{{ran(9)}}",
)
_TEXT: Final = " ".join(PAYLOADS)
_SHORT: Final = _TEXT[:200]
"""A name in AMQP has at most 255 bytes, also with a prefix."""
_VIEWS: Final = (
    "", "flows/", "way/", "queues/", "exchanges/", "connections/", "channels/", "consumers/", "dead/", "raw/", "audit/",
    "grading/", "crawl/", "monitor/",
)  # fmt: skip


_OPEN: Final = """() => {
  const closed = [...document.querySelectorAll("details:not([open])")];
  for (const each of closed) each.querySelector("summary").click();
  return closed.length;
}"""


async def measure_payloads(scene: Scene) -> None:
    """Put payloads into names, bodies, headers, errors and samples, open each view, and count what ran."""
    app = rabbitry.App(f"app {PAYLOADS[1]}")

    @app.stage(PAYLOADS[2], name=f"stage {PAYLOADS[0]}", attempts=1)
    async def fail(text: str) -> None:
        raise ValueError(_TEXT)

    async with (
        rabbitry.connect(scene.broker, name=_SHORT) as connection,
        app.worker(scene.broker),
        app.publisher(scene.broker) as publisher,
        chromium() as browser,
    ):
        channel = await connection.channel()
        await channel.declare_queue(_SHORT)
        await channel.declare_exchange(_SHORT, "topic")
        await channel.bind_queue(_SHORT, _SHORT, _SHORT, arguments={_SHORT[:100]: _TEXT})
        properties = Properties(headers={_SHORT[:100]: _TEXT}, message_id=_SHORT, type=_SHORT, content_type=_SHORT)
        identity = await publisher.publish(_TEXT, key=PAYLOADS[2])
        sample = {"hostname": _TEXT, "cpu": 0.5, "net": {_TEXT: {"rx": 1, "tx": 1}}, "platform": _TEXT, _TEXT: _TEXT}
        async with channel.consume(_SHORT, consumer_tag=_SHORT):
            page = await browser.new_page(viewport={"width": 1400, "height": 900})
            ran: list[str] = []
            await page.expose_function("ran", lambda *given: ran.append(str(given)))
            page.on("dialog", lambda dialog: ran.append(dialog.message))
            opened = 0
            for place in [*_VIEWS, *_opened(app.name, identity)]:
                await channel.publish(
                    json.dumps({_TEXT: _TEXT}).encode(), exchange=_SHORT, routing_key=_SHORT, properties=properties
                )
                await channel.publish(json.dumps(sample).encode(), exchange="system_info", mandatory=False)
                await page.goto(f"{scene.url}{place}")
                await asyncio.sleep(min(3, scene.seconds))  # what comes over the feed
                opened += await _open_all(page)
        await channel.delete_queue(_SHORT)
        await channel.delete_exchange(_SHORT)
    async with httpx.AsyncClient() as client:
        policy = (await client.get(scene.url)).headers["content-security-policy"]
    where = f"names, bodies, headers, errors and samples, in {len(_VIEWS)} views with {opened} details"
    scene.add(f"{len(PAYLOADS)} script payloads in {where}", f"{len(ran)} ran", "0 ran")
    if "unsafe-inline" in policy.partition("script-src")[2].partition(";")[0]:
        raise RuntimeError("the policy allows inline scripts")


def _opened(app: str, identity: str) -> list[str]:
    """Return the places of what has payloads in it, in full."""
    key = json.dumps(["/", _SHORT])
    return [
        f"queues/?{urlencode({'open': key})}",
        f"exchanges/?{urlencode({'open': key})}",
        f"way/?id={quote(identity)}",
        f"dead/?{urlencode({'vhost': '/', 'app': app})}",
        f"raw/?{urlencode({'exchange': _SHORT, 'key': '#'})}",
    ]


async def _open_all(page: Page) -> int:
    """Open what can be unfolded, twice: some holds more. Return how many."""
    number = 0
    for _ in range(2):
        number += await page.evaluate(_OPEN)
        await asyncio.sleep(0.3)
    return number
