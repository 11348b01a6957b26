"""The page of a crawl, as a router that the dashboard mounts: the live picture, and what the keeper is asked.

Nothing that only the roles need is imported here: the dashboard runs without the extra `crawl`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final, Protocol, TypeAlias

import msgspec
from fastapi import APIRouter, Query, Request, Response, WebSocket

from rabbitry._decode import json_decoder
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps._api import json_response, route_class
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import (
    Answered,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    Question,
    Refused,
)
from rabbitry.apps.crawl.asking import NO_KEEPER, Asking, Waiting
from rabbitry.apps.crawl.feed import TICK, feeding
from rabbitry.apps.crawl.messages import OUTCOMES, Add, Answer, Command, Tick
from rabbitry.apps.crawl.picture import Picture
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import RabbitryError, Undecodable, UsageError
from rabbitry.runtime.http.pages import serve_page

KEPT: Final = 1.0
"""Seconds for which an answer serves all pages."""
MOST_KEPT: Final = 64
"""Answers that are kept."""
EACH: Final = 50
"""Hosts, and documents that were found, that one answer holds."""
_LARGEST: Final = 1_000_000
_LONGEST_WORDS: Final = 1_000
_LONGEST_URL: Final = 10_000

PageNumber: TypeAlias = Annotated[int, Query(ge=0, le=1_000_000)]
_decode_command = json_decoder(Command)  # type: ignore[arg-type,var-annotated] # a union is no type


class Keeper(Protocol):
    """The keeper as the page uses it; `Asking` documents what is raised."""

    async def ask(self, question: Question) -> Answered:
        """Return the answer to a question."""

    async def tell(self, command: Command) -> Answer:
        """Send a command, and return its answer once it is committed."""

    async def close(self) -> None:
        """Close the connection, if there is one."""


class Pages:
    """The page's state: the picture, which is fed while `open` is entered, and the keeper's latest answers.

    url: the broker's. keeper: asked over the broker by default. plain: exchange and queues are declared as the
    original programs do.
    """

    def __init__(self, url: str, keeper: Keeper | None = None, *, plain: bool = False) -> None:
        self.router: APIRouter = APIRouter(route_class=route_class(self._largest))
        self.picture: Picture = Picture(str(parse_url(url)))
        self._url = url
        self._plain = plain
        self._keeper: Keeper = keeper or Asking(url, plain=plain)
        self._answers: dict[bytes, tuple[float, Answered]] = {}
        self._add_routes()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Feed the picture within the block."""
        try:
            async with feeding(self.picture, self._url, plain=self._plain):
                yield
        finally:
            with contextlib.suppress(RabbitryError):  # the connection is gone
                await self._keeper.close()

    def _add_routes(self) -> None:
        add = self.router.add_api_route
        self.router.add_api_websocket_route("/ws", self.live)
        add("/api/status", self.status)
        add("/api/hosts", self.hosts)
        add("/api/search", self.search)
        add("/api/why", self.why)
        add("/api/outcomes", self.outcomes)
        add("/api/command", self.command, methods=["POST"])

    # -- what is shown ---------------------------------------------------------------------------------

    async def live(self, websocket: WebSocket) -> None:
        """Send the picture to a page, and what changes in it."""
        await serve_page(websocket, self.picture.page, pause=TICK / 2)

    async def status(self) -> Response:
        """Return how far the crawl is, see `Status`."""
        return await self._asked(AskStatus())

    async def hosts(self, page: PageNumber = 0) -> Response:
        """Return a page of the hosts, see `Hosts`."""
        return await self._asked(AskHosts(limit=EACH, offset=page * EACH))

    async def search(self, words: str, page: PageNumber = 0) -> Response:
        """Return a page of the documents with these words, see `Found`."""
        if not words.strip() or len(words) > _LONGEST_WORDS:
            raise UsageError(f"search for 1 to {_LONGEST_WORDS} letters")
        return await self._asked(AskSearch(words.strip(), EACH, page * EACH))

    async def why(self, url: str) -> Response:
        """Return what was decided about an address, see `Why`."""
        if not url.strip() or len(url) > _LONGEST_URL:
            raise UsageError(f"an address has 1 to {_LONGEST_URL} letters")
        return await self._asked(AskWhy(url.strip()))

    async def outcomes(self) -> Response:
        """Return what each outcome's name means."""
        return json_response(OUTCOMES)

    # -- what is done ----------------------------------------------------------------------------------

    async def command(self, request: Request) -> Response:
        """Send the keeper a command: add addresses, pause, resume."""
        try:
            command: Command = _decode_command(await request.body())
        except Undecodable as error:
            raise UsageError(f"the request is no command: {error}") from error
        if isinstance(command, Tick):
            raise UsageError("a page can't send ticks: keepers do")
        if isinstance(command, Add):
            command = _checked(command)
        if self._is_cut_off:
            raise RecordsError(self._missing or "")
        try:
            answer = await self._keeper.tell(command)
        except Waiting as error:
            self.picture.news += 1  # it may have made the queue in which it waits
            return json_response(Answer([str(error)]))
        except Undecodable as error:
            raise RecordsError(str(error)) from error
        if answer.error:
            raise UsageError(answer.error)
        self._answers.clear()  # they tell what was before
        self.picture.news += 1
        return json_response(answer)

    # -- what it needs ---------------------------------------------------------------------------------

    async def _largest(self) -> int:
        return _LARGEST

    @property
    def _is_cut_off(self) -> bool:
        return self.picture.broker.state in ("away", "refused")

    @property
    def _has_no_keeper(self) -> bool:
        """Whether it is known that nobody answers. Before the first look at the queues nothing is known."""
        queues = self.picture.queues
        asked = queues.get(names.QUESTION_QUEUE)
        return bool(queues) and (asked is None or asked.consumers == 0)

    @property
    def _missing(self) -> str | None:
        """The reason why no answer can come, and what to do; None if one can."""
        if self._is_cut_off:
            return f"the broker is {self.picture.broker.state}, and with it the keeper"
        return NO_KEEPER if self._has_no_keeper else None

    async def _ask(self, question: Question) -> Answered:
        try:
            answered = await self._keeper.ask(question)
        except Undecodable as error:
            raise RecordsError(str(error)) from error
        if isinstance(answered, Refused):
            raise UsageError(answered.error) if answered.is_usage else RecordsError(answered.error)
        return answered

    async def _asked(self, question: Question) -> Response:
        """Ask, or reuse an answer of the last KEPT seconds; `at` says when it was given, in Unix seconds."""
        if (missing := self._missing) is not None:
            return json_response({"now": time.time(), "missing": missing})
        key = msgspec.json.encode(question)
        known = self._answers.get(key)
        if known is None or known[0] < time.time() - KEPT:
            known = time.time(), await self._ask(question)
            self._answers.pop(key, None)
            self._answers[key] = known
            while len(self._answers) > MOST_KEPT:
                del self._answers[next(iter(self._answers))]
        return json_response({"now": time.time(), "at": known[0], "each": EACH, "answer": known[1]})


def _checked(command: Add) -> Add:
    """Return a command without empty lines and white space. Raises UsageError if nothing is left."""
    urls = [url.strip() for url in command.urls if url.strip()]
    if not urls:
        raise UsageError("give at least one address, such as https://example.org/")
    allow = [domain.strip() for domain in command.allow if domain.strip()]
    contact = (command.contact or "").strip() or None
    return msgspec.structs.replace(command, urls=urls, allow=allow, contact=contact)
