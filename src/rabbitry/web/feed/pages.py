"""The pages that are connected to the feed, and their subscriptions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from starlette.websockets import WebSocket

from rabbitry._decode import json_decoder
from rabbitry.apps import Role, user_of
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.http.pages import OpenPages, serve_asking_page
from rabbitry.web.feed.topics import Part, Subscription, Topic

PAUSE: Final = 0.2
"""Seconds between two messages to a page."""
MOST_SUBSCRIPTIONS: Final = 32
"""Subscriptions of one page."""


class Ask(msgspec.Struct, frozen=True):
    """A message of a page; see the package's documentation."""

    open: int | None = None
    close: int | None = None
    topic: str = ""
    params: dict[str, Any] = {}


_decode = json_decoder(Ask)


class Feed:
    """The topics by name, and the pages that subscribe to them.

    Args:
        topics: The topics.
        clock: Returns Unix seconds.
    """

    def __init__(self, topics: Mapping[str, Topic], clock: Callable[[], float] = time.time) -> None:
        self.topics = topics
        self._clock = clock
        self._pages = OpenPages[FeedPage]()

    @contextmanager
    def page(self, peer: str | None = None, role: Role = Role.ADMIN) -> Iterator[FeedPage]:
        """Open a page of a user with a role, until the block is left. `peer` is its address. Raises TooManyPages."""
        with self._pages.opened(lambda: FeedPage(self.topics, self._clock, role), peer) as page:
            try:
                yield page
            finally:
                page.close()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one page until it goes away."""
        role = user_of(websocket).role
        await serve_asking_page(websocket, lambda peer: self.page(peer, role), pause=PAUSE)


class _Open:
    """One subscription of a page, with the number of its last part."""

    def __init__(self, topic: Topic, subscription: Subscription) -> None:
        self.topic = topic
        self.subscription = subscription
        self.seq = 0


class FeedPage:
    """A page: its subscriptions by their numbers."""

    def __init__(self, topics: Mapping[str, Topic], clock: Callable[[], float], role: Role) -> None:
        self._topics = topics
        self._role = role
        self._clock = clock
        self._wake = asyncio.Event()
        self._open: dict[int, _Open] = {}
        self._errors: dict[int, str] = {}

    def receive(self, text: str) -> None:
        """Open, change or close a subscription. What makes no sense is answered with an error."""
        try:
            ask = _decode(text.encode("utf-8", "surrogatepass"))
        except Undecodable as error:
            self._refuse(0, f"no message of a page: {error}")
            return
        if ask.close is not None:
            self._end(ask.close)
        if ask.open is None:
            return
        self._end(ask.open)
        topic = self._topics.get(ask.topic)
        if topic is None:
            self._refuse(ask.open, f"there is no topic {ask.topic[:40]!r}")
        elif self._role < topic.role:
            self._refuse(ask.open, f"this needs the role {topic.role.label}, and you have the role {self._role.label}")
        elif len(self._open) >= MOST_SUBSCRIPTIONS:
            self._refuse(ask.open, f"a page has at most {MOST_SUBSCRIPTIONS} subscriptions")
        else:
            try:
                subscription = topic.subscribe(ask.params, self._wake.set)
            except UsageError as error:
                self._refuse(ask.open, str(error))
                return
            self._open[ask.open] = _Open(topic, subscription)
            self._wake.set()

    async def wait(self) -> None:
        """Wait until something changed. Cancelling loses nothing."""
        await self._wake.wait()

    def take(self) -> object:
        """Return the next message to the page."""
        self._wake.clear()
        parts: list[Part] = [{"id": number, "error": text} for number, text in self._errors.items()]
        self._errors.clear()
        for number, one in self._open.items():
            if (part := one.subscription.take()) is not None:
                one.seq += 1
                parts.append({"id": number, "seq": one.seq, **part})
        message: dict[str, object] = {"now": self._clock()}
        return message | ({"parts": parts} if parts else {})

    def close(self) -> None:
        """End all subscriptions."""
        for number in list(self._open):
            self._end(number)

    def _end(self, number: int) -> None:
        one = self._open.pop(number, None)
        if one is not None:
            one.topic.unsubscribe(one.subscription)
        self._errors.pop(number, None)

    def _refuse(self, number: int, why: str) -> None:
        if len(self._errors) < MOST_SUBSCRIPTIONS:
            self._errors[number] = why
        self._wake.set()
