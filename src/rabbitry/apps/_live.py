"""Live pages: a WebSocket that small updates are sent over until the page goes away, and limits on their number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, Protocol, TypeVar

import msgspec
from fastapi import WebSocket, WebSocketDisconnect

from rabbitry.apps.exceptions import TooManyPages
from rabbitry.runtime.http.guard import peer_of

PAGE_LIMIT = 128
"""Pages that may be open at once."""
PEER_PAGE_LIMIT = 32
"""Pages that one address may have open at once, so that it does not shut out the others."""
LIFE_SIGN = 5.0
"""Seconds after which a page gets an update with nothing in it, so that it knows the silence from a loss."""
SEND_TIMEOUT = 20.0
"""Seconds after which a page that reads nothing is given up."""

_GONE = (TimeoutError, WebSocketDisconnect, OSError)
"""How sending to a page ends that is no longer there."""


class Updates(Protocol):
    """The updates that wait to be sent to one page. Implementations bound them."""

    async def wait(self) -> None:
        """Wait until something is to be sent. Cancelling loses nothing."""

    def take(self) -> object:
        """Return the next update, which is encoded as JSON; one with nothing in it is a sign of life."""


P = TypeVar("P", bound=Updates)


class OpenPages(Generic[P]):
    """The pages that are open, and the addresses that have them open."""

    def __init__(self) -> None:
        self._pages: dict[P, str] = {}

    def __iter__(self) -> Iterator[P]:
        return iter(self._pages)

    def __len__(self) -> int:
        return len(self._pages)

    @contextmanager
    def opened(self, make: Callable[[], P], peer: str | None = None) -> Iterator[P]:
        """Make a page, which is open until the block is left. `peer` is the address that has it open.

        Raises:
            TooManyPages: PAGE_LIMIT of them are open, or PEER_PAGE_LIMIT by this peer.
        """
        if len(self._pages) >= PAGE_LIMIT:
            raise TooManyPages(f"{PAGE_LIMIT} pages are open already")
        if peer is not None and list(self._pages.values()).count(peer) >= PEER_PAGE_LIMIT:
            raise TooManyPages(f"{PEER_PAGE_LIMIT} pages are open already at your address")
        page = make()
        self._pages[page] = peer or ""
        try:
            yield page
        finally:
            del self._pages[page]


async def serve_page(
    websocket: WebSocket, opened: Callable[[str], AbstractContextManager[Updates]], *, pause: float
) -> None:
    """Send updates to one page until it goes away, or reads nothing for too long.

    Args:
        websocket: not accepted yet.
        opened: opens the page for an address; may raise TooManyPages.
        pause: seconds between two updates.
    """
    await websocket.accept()
    try:
        with opened(peer_of(websocket.scope)) as page:
            sending = asyncio.create_task(_send_updates(websocket, page, pause), name="updates for a page")
            receiving = asyncio.create_task(websocket.receive(), name="end of a page")
            try:
                await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                receiving.cancel()
                outcomes = await asyncio.gather(sending, receiving, return_exceptions=True)
    except TooManyPages as error:
        await websocket.close(1013, str(error))
        return
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, _GONE):
            raise outcome
    if isinstance(outcomes[1], dict) and outcomes[1]["type"] == "websocket.receive":
        await websocket.close(1003, "this socket takes no messages")


async def _send_updates(websocket: WebSocket, page: Updates, pause: float) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIFE_SIGN):
                await page.wait()
        async with asyncio.timeout(SEND_TIMEOUT):
            await websocket.send_text(msgspec.json.encode(page.take()).decode())
        await asyncio.sleep(pause)
