"""The topic `drift`: how the broker's exchanges, queues and bindings differ from those that apps declare."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rabbitry.apps.management import NothingThere, get, get_object, open_client, part_of
from rabbitry.exceptions import ConnectFailed
from rabbitry.web.feed.topics import Value

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL
    from rabbitry.telemetry import Declares, Report
    from rabbitry.web.sources.telemetry import Telemetry

EVERY: Final = 10.0
"""Seconds between two comparisons while a page shows them."""
SHARE: Final = 20
"""The pause after a comparison is at least this many times as long as the comparison."""
MOST_APPS: Final = 100
MOST_OBJECTS: Final = 500
"""Objects of one app that are compared."""
_MISSING: Final = "it is missing"
_START: Final = "Workers declare it when they start or connect again"
_OTHERWISE: Final = (
    "Workers use it as it is. To have it as the app wants it: stop its programs, delete it once it is empty, and start "
    "a worker; or change the app"
)

_logger = logging.getLogger(__name__)
Finding = dict[str, str]


class Drift:
    """The source of the topic `drift`.

    Its members are `apps` (app → its differences, each with `what`, `text` and `todo`) and `reason` (why nothing can be
    compared, or empty).

    Args:
        url: The URL of the broker's management API.
        login: The broker's URL.
        telemetry: The source of the workers' reports, which have what their apps declare.
    """

    def __init__(self, url: str, login: BrokerURL, telemetry: Telemetry) -> None:
        self.topic: Value = Value({"apps": {}, "reason": ""})
        self._url = url
        self._login = login
        self._wanted: dict[str, Declares] = {}
        telemetry.listeners.append(self._take)

    def _take(self, report: Report) -> None:
        known = report.app in self._wanted or len(self._wanted) < MOST_APPS
        if report.declares is not None and known and len(report.app) <= MOST_OBJECTS:
            self._wanted[report.app] = report.declares

    async def run(self) -> None:
        """Compare while a page shows the differences, until cancelled."""
        async with open_client(self._url, self._login) as client:
            while True:
                await self.topic.wanted.wait()
                began = time.monotonic()
                apps: dict[str, list[Finding]] = {}
                reason = ""
                try:
                    for app, declares in list(self._wanted.items()):
                        apps[app] = await compare(client, self._login.virtual_host, declares)
                except ConnectFailed as error:
                    reason = str(error)
                self.topic.put({"apps": apps, "reason": reason}, time.time())
                await asyncio.sleep(max(EVERY, SHARE * (time.monotonic() - began)))


async def compare(client: httpx.AsyncClient, vhost: str, declares: Declares) -> list[Finding]:
    """Return the differences between what an app declares and what a broker has.

    Args:
        client: A client of the broker's management API.
        vhost: The virtual host.
        declares: The app's declarations.

    Raises:
        ConnectFailed: The management API does not answer.
    """
    found: list[Finding] = []
    place = quote(vhost, safe="")
    for exchange in declares.exchanges[:MOST_OBJECTS]:
        there = await _object(client, f"/api/exchanges/{place}/{quote(exchange.name, safe='')}")
        wanted = {"type": exchange.type, "durable": exchange.durable, "auto_delete": exchange.auto_delete}
        found += _differences(f"exchange '{exchange.name}'", wanted, {}, there)
    for queue in declares.queues[:MOST_OBJECTS]:
        path = f"/api/queues/{place}/{quote(queue.name, safe='')}"
        there = await _object(client, path)
        flags = {"durable": queue.durable, "auto_delete": queue.auto_delete}
        found += _differences(f"queue '{queue.name}'", flags, queue.arguments, there)
        bindings = [binding for binding in declares.bindings if binding.queue == queue.name]
        if there is not None and bindings:
            present = await get(client, f"{path}/bindings")
            has = {(item.get("source"), item.get("routing_key")) for item in present}
            for binding in bindings:
                if (binding.exchange, binding.key) not in has:
                    what = f"binding of queue '{queue.name}' to exchange '{binding.exchange}' with key '{binding.key}'"
                    found.append({"what": what, "text": _MISSING, "todo": _START})
    return found


async def _object(client: httpx.AsyncClient, path: str) -> Mapping[str, Any] | None:
    try:
        return await get_object(client, path)
    except NothingThere:
        return None


def _differences(
    what: str, flags: Mapping[str, object], arguments: Mapping[str, object], there: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if there is None:
        yield {"what": what, "text": _MISSING, "todo": _START}
        return
    texts = [
        f"{name} is {there.get(name)!r}, not {wanted!r}" for name, wanted in flags.items() if there.get(name) != wanted
    ]
    given = part_of(there, "arguments")
    for name in sorted({*arguments, *given}):
        if name not in given:
            texts.append(f"{name} is not set, and should be {arguments[name]!r}")
        elif name not in arguments:
            texts.append(f"{name} is {given[name]!r}, and should not be set")
        elif given[name] != arguments[name]:
            texts.append(f"{name} is {given[name]!r}, not {arguments[name]!r}")
    if texts:
        yield {"what": what, "text": "; ".join(texts), "todo": _OTHERWISE}
