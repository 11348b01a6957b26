"""The page of a crawl, as a router that the dashboard mounts: the live picture.

Nothing that only the roles need is imported here: the dashboard runs without the extra `crawl`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from fastapi import APIRouter, WebSocket
from fastapi.responses import FileResponse

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps._live import serve_page
from rabbitry.apps.crawl.feed import TICK, feeding
from rabbitry.apps.crawl.picture import Picture

STATIC: Final = Path(__file__).parent / "static"


class Pages:
    """The page's state: the picture, which is fed while `open` is entered.

    url: the broker's. plain: the exchange is declared as the original programs do.
    """

    def __init__(self, url: str, *, plain: bool = False) -> None:
        self.router = APIRouter()
        self.picture = Picture(str(parse_url(url)))
        self._url = url
        self._plain = plain
        self._add_routes()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Feed the picture within the block."""
        async with feeding(self.picture, self._url, plain=self._plain):
            yield

    def _add_routes(self) -> None:
        self.router.add_api_route("/", self.page, include_in_schema=False)
        self.router.add_api_websocket_route("/ws", self.live)

    async def page(self) -> FileResponse:
        """Return the page itself."""
        return FileResponse(STATIC / "index.html")

    async def live(self, websocket: WebSocket) -> None:
        """Send the picture to a page, and what changes in it."""
        await serve_page(websocket, self.picture.page, pause=TICK / 2)
