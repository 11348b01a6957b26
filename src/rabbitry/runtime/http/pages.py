"""Live pages: a WebSocket that carries small updates until the page closes, and limits on the number of pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, Protocol, TypeVar

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.http.guard import peer_of

PAGE_LIMIT = 128
"""Pages that may be open at once."""
PEER_PAGE_LIMIT = 32
"""Pages that one address may have open at once, so that it does not take all places."""
LIFE_SIGN = 5.0
"""Seconds after which a page gets an empty update, which tells a quiet page from a lost connection."""
SEND_TIMEOUT = 20.0
"""Seconds after which a page that reads nothing is disconnected."""
LONGEST_MESSAGE = 1 << 16
"""Characters of a message that a page may send."""

_GONE = (TimeoutError, WebSocketDisconnect, OSError)
"""Errors of sending to a page that is gone."""


class TooManyPages(RabbitryError):
    """The limit of open pages is reached; the text names the limit."""


class Updates(Protocol):
    """The updates waiting for one page. Implementations bound their number."""

    async def wait(self) -> None:
        """Wait until there is an update to send. Cancelling loses nothing."""

    def take(self) -> object:
        """Return the next update, which is encoded as JSON; an empty one only shows that the connection is alive."""


class Asking(Updates, Protocol):
    """The updates of a page that says by messages of its own what it wants to see."""

    def receive(self, text: str) -> None:
        """Take a message of the page."""


P = TypeVar("P", bound=Updates)


class OpenPages(Generic[P]):
    """The open pages, and the addresses that have them open."""

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
            raise TooManyPages(f"{PAGE_LIMIT} pages are open already: close one")
        if peer is not None and list(self._pages.values()).count(peer) >= PEER_PAGE_LIMIT:
            raise TooManyPages(f"{PEER_PAGE_LIMIT} pages are open already from your address: close one")
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
    await _serve(websocket, opened, pause, lambda page: _no_messages)


async def serve_asking_page(
    websocket: WebSocket, opened: Callable[[str], AbstractContextManager[Asking]], *, pause: float
) -> None:
    """Send updates to one page as `serve_page` does, and pass it the messages that come."""
    await _serve(websocket, opened, pause, lambda page: page.receive)


def _no_messages(text: str) -> None:
    raise _Unwanted(1003, "this socket takes no messages")


class _Unwanted(RabbitryError):
    """A message for which a page's socket is closed, with a code of RFC 6455, section 7.4.1."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


async def _serve(
    websocket: WebSocket,
    opened: Callable[[str], AbstractContextManager[P]],
    pause: float,
    receiver: Callable[[P], Callable[[str], None]],
) -> None:
    await websocket.accept()
    try:
        with opened(peer_of(websocket.scope)) as page:
            sending = asyncio.create_task(_send_updates(websocket, page, pause), name="updates for a page")
            receiving = asyncio.create_task(_receive(websocket, receiver(page)), name="messages of a page")
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
        if isinstance(outcome, _Unwanted):
            await websocket.close(outcome.code, str(outcome))
        elif isinstance(outcome, Exception) and not isinstance(outcome, _GONE):
            raise outcome


async def _receive(websocket: WebSocket, receive: Callable[[str], None]) -> None:
    """Pass on the page's messages until it goes away."""
    while (message := await websocket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            raise _Unwanted(1003, "this socket takes no binary messages")
        if len(text) > LONGEST_MESSAGE:
            raise _Unwanted(1009, f"a message may have {LONGEST_MESSAGE} characters")
        receive(text)


async def _send_updates(websocket: WebSocket, page: Updates, pause: float) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIFE_SIGN):
                await page.wait()
        async with asyncio.timeout(SEND_TIMEOUT):
            await websocket.send_text(msgspec.json.encode(page.take()).decode())
        await asyncio.sleep(pause)
