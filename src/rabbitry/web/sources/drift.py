"""The topic `drift`: how the broker's exchanges, queues and bindings differ from those that apps declare."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from rabbitry.apps.management import NothingThere, Unanswerable, get, get_object, open_client, part_of, place_of
from rabbitry.exceptions import ConnectFailed
from rabbitry.telemetry import Declares
from rabbitry.web.feed.topics import Value
from rabbitry.web.sources.fields import text

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL
    from rabbitry.telemetry import Report
    from rabbitry.web.sources.telemetry import Telemetry

EVERY: Final = 10.0
"""Seconds between two comparisons while a page shows them."""
SHARE: Final = 20
"""The pause after a comparison is at least this many times as long as the comparison."""
MOST_APPS: Final = 100
MOST_OBJECTS: Final = 500
"""Exchanges, queues and bindings of one app that are compared, of each kind."""
MOST_OF_ALL: Final = 5000
"""Exchanges and queues of all apps; each of them is asked for. An app for which there is no room is left out."""
MOST_FOUND: Final = 100
"""Differences of one app that are told."""
LONGEST: Final = 255
"""Characters of a name, and of a value that is told."""
_MOST_ARGUMENTS: Final = 50
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
        app, is_known = report.app, report.app in self._wanted
        if report.declares is None or len(app) > LONGEST or not (is_known or len(self._wanted) < MOST_APPS):
            return
        declares = _bounded(report.declares)
        others = sum(_objects(each) for name, each in self._wanted.items() if name != app)
        if others + _objects(declares) <= MOST_OF_ALL:
            self._wanted[app] = declares

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
    for exchange in declares.exchanges:
        wanted = {"type": exchange.type, "durable": exchange.durable, "auto_delete": exchange.auto_delete}
        with contextlib.suppress(Unanswerable):
            there = await _object(client, f"/api/exchanges/{place_of(vhost, exchange.name)}")
            found += _differences(f"exchange '{exchange.name}'", wanted, {}, there)
    bindings: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for binding in declares.bindings:
        bindings[binding.queue].append((binding.exchange, binding.key))
    for queue in declares.queues:
        flags = {"durable": queue.durable, "auto_delete": queue.auto_delete}
        with contextlib.suppress(Unanswerable, NothingThere):  # it was deleted in between
            path = f"/api/queues/{place_of(vhost, queue.name)}"
            there = await _object(client, path)
            found += _differences(f"queue '{queue.name}'", flags, queue.arguments, there)
            if there is not None and (wanted_ones := bindings.get(queue.name)):
                present = await get(client, f"{path}/bindings")
                has = {(text(item.get("source")), text(item.get("routing_key"))) for item in present}
                for exchange_name, key in (one for one in wanted_ones if one not in has):
                    what = f"binding of queue '{queue.name}' to exchange '{exchange_name}' with key '{key}'"
                    found.append({"what": what, "text": _MISSING, "todo": _START})
    return found[:MOST_FOUND]


async def _object(client: httpx.AsyncClient, path: str) -> Mapping[str, Any] | None:
    try:
        return await get_object(client, path)
    except NothingThere:
        return None


def _objects(declares: Declares) -> int:
    return len(declares.exchanges) + len(declares.queues)


def _bounded(declares: Declares) -> Declares:
    """Return declarations that take no more memory, and no more requests, than those of a large app.

    A queue with more or longer arguments is left out: without some of them it would differ from the broker's.
    """
    return Declares(
        [one for one in declares.exchanges[:MOST_OBJECTS] if _are_short(one.name, one.type)],
        [
            one
            for one in declares.queues[:MOST_OBJECTS]
            if len(one.arguments) <= _MOST_ARGUMENTS and _are_short(one.name, *one.arguments, *one.arguments.values())
        ],
        [one for one in declares.bindings[:MOST_OBJECTS] if _are_short(one.exchange, one.queue, one.key)],
    )


def _are_short(*values: object) -> bool:
    return all(not isinstance(value, str) or len(value) <= LONGEST for value in values)


def _differences(
    what: str, flags: Mapping[str, object], arguments: Mapping[str, object], there: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if there is None:
        yield {"what": what, "text": _MISSING, "todo": _START}
        return
    texts = [
        f"{name} is {_told(there.get(name))}, not {_told(wanted)}"
        for name, wanted in flags.items()
        if there.get(name) != wanted
    ]
    given = part_of(there, "arguments")
    for name in sorted({*arguments, *given}):
        if name not in given:
            texts.append(f"{name} is not set, and should be {_told(arguments[name])}")
        elif name not in arguments:
            texts.append(f"{name} is {_told(given[name])}, and should not be set")
        elif given[name] != arguments[name]:
            texts.append(f"{name} is {_told(given[name])}, not {_told(arguments[name])}")
    if texts:
        yield {"what": what, "text": "; ".join(texts[:_MOST_ARGUMENTS]), "todo": _OTHERWISE}


def _told(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
