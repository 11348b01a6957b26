"""The page of a crawl, as a router for the dashboard: the live picture, and queries to the keeper.

Modules that only the roles need are not imported here: the dashboard runs without the extra `crawl`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final, Generic, Protocol, TypeAlias, TypedDict, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request, Response, WebSocket

from rabbitry._decode import json_decoder
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import (
    LONGEST_SEARCH,
    Answered,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    Found,
    Hosts,
    Question,
    Refused,
    Status,
    Why,
)
from rabbitry.apps.crawl.asking import NO_KEEPER, Asking, Waiting
from rabbitry.apps.crawl.feed import TICK, feeding
from rabbitry.apps.crawl.messages import OUTCOMES, Add, Answer, Command, Tick
from rabbitry.apps.crawl.picture import Picture
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import RabbitryError, Undecodable, UsageError
from rabbitry.runtime.http.pages import serve_page

KEPT: Final = 1.0
"""Seconds for which an answer is reused for all pages."""
MOST_KEPT: Final = 64
"""Answers kept."""
EACH: Final = 50
"""Hosts, or documents found, in one answer."""
_LARGEST: Final = 1_000_000
_LONGEST_URL: Final = 10_000

PageNumber: TypeAlias = Annotated[int, Query(ge=0, le=1_000_000)]
T = TypeVar("T")
_decode_command = json_decoder(Command)  # type: ignore[arg-type,var-annotated] # a union is no type


class Known(msgspec.Struct, Generic[T]):
    """The keeper's answer, given at `at`. now: the server's time; both in Unix seconds. each: entries of a page."""

    now: float
    at: float
    each: int
    answer: T


class Missing(TypedDict):
    """Why there is no answer, and what to do."""

    now: float
    missing: str


class Keeper(Protocol):
    """The interface to the keeper; see `Asking` for the errors."""

    async def ask(self, question: Question) -> Answered:
        """Return the answer to a query."""

    async def tell(self, command: Command) -> Answer:
        """Send a command, and return its answer once it is committed."""

    async def close(self) -> None:
        """Close the connection, if there is one."""


class Pages:
    """The page's state: the picture, which is fed while `open` is entered, and the keeper's latest answers.

    url: the broker's. keeper: by default queried over the broker. plain: declare with the original programs' flags.
    """

    def __init__(self, url: str, keeper: Keeper | None = None, *, plain: bool = False) -> None:
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST))
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
            with contextlib.suppress(RabbitryError):  # the connection is lost
                await self._keeper.close()

    def _add_routes(self) -> None:
        add = self.router.add_api_route
        self.router.add_api_websocket_route("/ws", self.live)
        add("/api/status", self.status, responses=answers(Known[Status], Missing))
        add("/api/hosts", self.hosts, responses=answers(Known[Hosts], Missing))
        add("/api/search", self.search, responses=answers(Known[Found], Missing))
        add("/api/why", self.why, responses=answers(Known[Why], Missing))
        add("/api/outcomes", self.outcomes, responses=answers(dict[str, str]))
        add("/api/command", self.command, methods=["POST"], responses=answers(Answer))

    # -- reading ---------------------------------------------------------------------------------------

    async def live(self, websocket: WebSocket) -> None:
        """Send a page the picture and its changes."""
        await serve_page(websocket, self.picture.page, pause=TICK / 2)

    async def status(self) -> Response:
        """Return the progress of the crawl, see `Status`."""
        return await self._asked(AskStatus())

    async def hosts(self, page: PageNumber = 0) -> Response:
        """Return a page of the hosts, see `Hosts`."""
        return await self._asked(AskHosts(limit=EACH, offset=page * EACH))

    async def search(self, words: str, page: PageNumber = 0) -> Response:
        """Return a page of the documents with these words, see `Found`."""
        if not words.strip():
            raise UsageError("a search must have at least one character")
        return await self._asked(AskSearch(words.strip()[: LONGEST_SEARCH + 1], EACH, page * EACH))

    async def why(self, url: str) -> Response:
        """Return the decisions about an address, see `Why`."""
        if not url.strip() or len(url) > _LONGEST_URL:
            raise UsageError(f"an address must have 1 to {_LONGEST_URL} characters")
        return await self._asked(AskWhy(url.strip()))

    async def outcomes(self) -> Response:
        """Return the meaning of each outcome."""
        return json_response(OUTCOMES)

    # -- writing ---------------------------------------------------------------------------------------

    async def command(self, request: Request) -> Response:
        """Send the keeper a command: add addresses, pause or resume."""
        try:
            command: Command = _decode_command(await request.body())
        except Undecodable as error:
            raise UsageError(f"the request is not a command: {error}") from error
        if isinstance(command, Tick):
            raise UsageError("a page can't send ticks: only keepers do")
        if isinstance(command, Add):
            command = _checked(command)
        if self._is_cut_off:
            raise RecordsError(self._missing or "")
        try:
            answer = await self._keeper.tell(command)
        except Waiting as error:
            self.picture.news += 1  # it may have created its queue
            return json_response(Answer([str(error)]))
        except Undecodable as error:
            raise RecordsError(str(error)) from error
        if answer.error:
            raise UsageError(answer.error)
        self._answers.clear()  # they are out of date
        self.picture.news += 1
        return json_response(answer)

    # -- resources -------------------------------------------------------------------------------------

    @property
    def _is_cut_off(self) -> bool:
        return self.picture.broker.state in ("away", "refused")

    @property
    def _has_no_keeper(self) -> bool:
        """Whether the keeper is known to be missing: before the first check of the queues, it is not."""
        queues = self.picture.queues
        asked = queues.get(names.QUESTION_QUEUE)
        return bool(queues) and (asked is None or asked.consumers == 0)

    @property
    def _missing(self) -> str | None:
        """Why no answer can come, and the remedy; None if one can."""
        if self._is_cut_off:
            return f"the keeper can't be reached: the broker is {self.picture.broker.state}"
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
        """Send a query, or reuse an answer of the last KEPT seconds; `at` is its Unix time."""
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
        return json_response(Known(time.time(), known[0], EACH, known[1]))


def _checked(command: Add) -> Add:
    """Return a command without empty lines and surrounding white space. Raises UsageError if nothing is left."""
    urls = [url.strip() for url in command.urls if url.strip()]
    if not urls:
        raise UsageError("no address: write at least one, such as https://example.org/")
    allow = [domain.strip() for domain in command.allow if domain.strip()]
    contact = (command.contact or "").strip() or None
    return msgspec.structs.replace(command, urls=urls, allow=allow, contact=contact)
