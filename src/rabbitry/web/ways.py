"""The routes of the Messages view: the reported passages of a message's chain, and the search for ids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.telemetry import Masking
from rabbitry.web.answers import Chain, Named, Recent, ReportedPassage
from rabbitry.web.passages import KEPT, MOST_SHOWN, Passages
from rabbitry.web.sources.telemetry import EVERY, Telemetry

LONGEST: Final = 255
"""Characters of an id, or of the words of a search."""
SHORTEST: Final = 4
"""Characters of the shortest beginning of an id that is searched for."""
MOST_FOUND: Final = 20
_logger = logging.getLogger(__name__)

Text = Annotated[str, Query(max_length=LONGEST)]


class Ways:
    """The routes of the view, below `/way/api`.

    Args:
        telemetry: The source of the reports.
        masking: What is masked in errors, besides what the workers have masked.
    """

    def __init__(self, telemetry: Telemetry, masking: Masking) -> None:
        self._masking = masking
        self._telemetry = telemetry
        self._passages: Passages | None = None
        self.router: APIRouter = APIRouter(route_class=route_class())
        self.router.add_api_route("/chain", self.chain, responses=answers(Chain))
        self.router.add_api_route("/recent", self.recent, responses=answers(Recent))
        self.router.add_api_route("/queue", self.of_queue, responses=answers(list[ReportedPassage]))
        self.router.add_api_route("/search", self.search, responses=answers(list[Named]))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep passages while the block runs."""
        passages = self._passages = await asyncio.to_thread(Passages)
        self._telemetry.listeners.append(passages.take)
        task = asyncio.create_task(self._write(passages), name="passages of messages")
        try:
            yield
        finally:
            self._telemetry.listeners.remove(passages.take)
            self._passages = None
            task.cancel()
            await asyncio.wait([task])
            await passages.close()

    async def _write(self, passages: Passages) -> None:
        while True:
            await asyncio.sleep(EVERY / 2)
            try:
                await passages.write()
            except Exception:
                _logger.exception("passages of messages can't be kept")

    @needs(Role.VIEWER)
    async def chain(self, request: Request, id: Text) -> Response:
        """Return the passages of the chain that an id belongs to: `chain`, `passages`, `share`, `most`, `kept`."""
        chain, passages = await self._passages.chain(id.strip()) if self._passages else (id, [])
        passages = self._for(request, passages)
        return json_response({"chain": chain, "passages": passages, "most": MOST_SHOWN, **self._about()})

    @needs(Role.VIEWER)
    async def recent(self, request: Request) -> Response:
        """Return the last passages of the newest chains: `failed`, `others`, `share`, `kept`."""
        if self._passages is None:
            return json_response({"failed": [], "others": [], **self._about()})
        failed, others = await self._passages.recent(failed=True), await self._passages.recent(failed=False)
        told = {"failed": self._for(request, failed), "others": self._for(request, others)}
        return json_response({**told, **self._about()})

    @needs(Role.VIEWER)
    async def of_queue(self, request: Request, name: Text) -> Response:
        """Return the newest passages through the stage of a queue of the broker URL's virtual host, newest first."""
        passages = await self._passages.of_queue(name) if self._passages else []
        return json_response(self._for(request, passages))

    @needs(Role.VIEWER)
    async def search(self, words: Text) -> Response:
        """Return messages, machines, stages and queues by name: a list of `kind`, `title`, and `id` or `key`."""
        text = words.strip()
        ids = await self._passages.beginning(text) if self._passages and len(text) >= SHORTEST else []
        found = [{"kind": "message", "title": identity, "id": identity} for identity in ids]
        return json_response([*found, *self._named(text.casefold())])

    def _named(self, text: str) -> list[dict[str, str]]:
        """Return the machines, stages and queues of live nodes that have a text in their names."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for node in self._telemetry.nodes.live() if text else ():
            report = node.report
            queue = report.wiring.queue if report.wiring is not None else ""
            worker = f"c:{report.host}/{report.app} {report.id}"
            for kind, title, key in (
                ("host", report.host, worker),
                ("stage", f"{report.app} {report.role}", f"q:{self._telemetry.vhost}/{queue}" if queue else worker),
                ("queue", queue, f"q:{self._telemetry.vhost}/{queue}"),
            ):
                if title and text in title.casefold() and len(found) < MOST_FOUND:
                    found.setdefault((kind, title), {"kind": kind, "title": title, "key": key})
        return list(found.values())

    def _about(self) -> dict[str, Any]:
        """Return the smallest share of chains that a live node reports, and for how long they are kept."""
        live = list(self._telemetry.nodes.live())
        shares = [node.report.share for node in live if 0 < node.report.share <= 1]
        left_out = self._passages.left_out if self._passages else 0
        missed = left_out + sum(node.report.missed for node in live)
        return {"share": min(shares, default=1.0), "missed": missed, "nodes": len(live), "kept": KEPT}

    def _for(self, request: Request, passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return passages for a user. A viewer gets no error texts, since these may quote a message."""
        if user_of(request).role < Role.OPERATOR:
            return [one | {"error": one["error"].partition(":")[0], "trace": ""} for one in passages]
        return [one | {name: self._masking.lines(one[name]) for name in ("error", "trace")} for one in passages]
