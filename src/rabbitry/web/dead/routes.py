"""The routes of the Dead letters view."""

from __future__ import annotations

import base64
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.management import NothingThere, Unanswerable, get_object, management_url, open_client, place_of
from rabbitry.exceptions import RabbitryError, Undecodable, UsageError
from rabbitry.flow.wiring.dead_letters import dead_queue, target_of
from rabbitry.telemetry import Masking
from rabbitry.web.answers import BodyCheck, Done, DryRun, EditedBody, Fetches, LetterGroups, Letters, Started
from rabbitry.web.audit import Audit
from rabbitry.web.dead.jobs import Job, Jobs
from rabbitry.web.dead.looking import Looking
from rabbitry.web.dead.selection import MARKED, App, Groups, Selection, readable
from rabbitry.web.dead.types import Types, problems
from rabbitry.web.feed.topics import Topic
from rabbitry.web.login.requests import body_of, query_of
from rabbitry.web.sources.fields import number

if TYPE_CHECKING:
    import httpx

AT_ONCE: Final = 20
"""Dead letters of a group in one answer."""
LONGEST: Final = 20_000
"""Bytes of a body that are shown."""
LONGEST_EDITED: Final = 1 << 20
"""Bytes of a body that may be edited."""
_LARGEST: Final = 8 << 20
"""Bytes of a request; JSON may need six for one of a body."""
_MOST_TARGETS: Final = 20
_FASTEST: Final = 1_000_000


class Page(Selection, frozen=True, forbid_unknown_fields=True):
    """A selection, of which those after the first `skip` are to be seen."""

    skip: int = 0


class Replayed(Selection, frozen=True, forbid_unknown_fields=True):
    """A selection that is to be replayed. rate: a second. expected: how many the page counted. body: an edited one."""

    rate: int | None = None
    expected: int | None = None
    body: str | None = None


class Dropped(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A selection that is to be dropped, and the queue's name, typed to confirm it."""

    confirm: str
    expected: int | None = None


class Checked(App, frozen=True, forbid_unknown_fields=True):
    """An edited body of a message of a stage."""

    stage: str
    body: str


_Route: TypeAlias = tuple[str, Callable[[Request], Awaitable[Response]], type[App], type]
"""A path, its function, its request, and its answer."""
A = TypeVar("A", bound=App)
S = TypeVar("S", bound=Selection)


class DeadLetters:
    """The routes of the view. They work while `running` is entered.

    Args:
        broker: The broker's URL.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        audit: Where changes are logged.
        masking: What is masked in dead letters that are looked at.

    Raises:
        UsageError: One of them is no URL.

    Attributes:
        jobs: The replays and drops.
        types: The types of stages' messages, which takes the reports of workers.
    """

    def __init__(self, broker: str, management: str | None, audit: Audit, masking: Masking) -> None:
        self._masking = masking
        self._login = parse_url(broker)
        self._url = management_url(management, self._login)
        self._audit = audit
        self._client: httpx.AsyncClient
        self._looking = Looking(self._login, lambda: self._client)
        self.jobs: Jobs = Jobs(self._looking.connected, audit)
        self.types: Types = Types()
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST))
        add = self.router.add_api_route
        for path, look, asked, answer in self._looks():
            add(path, look, openapi_extra=query_of(asked), responses=answers(answer, Fetches))
            add(path, look, methods=["POST"], openapi_extra=body_of(asked), responses=answers(answer))
        for path, change, asked, answer in self._changes():
            add(path, change, methods=["POST"], openapi_extra=body_of(asked), responses=answers(answer))

    def _looks(self) -> tuple[_Route, ...]:
        return (
            ("/groups", self.groups, App, LetterGroups),
            ("/letters", self.letters, Page, Letters),
            ("/dry-run", self.dry_run, Selection, DryRun),
        )

    def _changes(self) -> tuple[_Route, ...]:
        return (
            ("/body", self.body, Selection, EditedBody),
            ("/check", self.check, Checked, BodyCheck),
            ("/replay", self.replay, Replayed, Started),
            ("/drop", self.drop, Dropped, Started),
            ("/pause", self.pause, App, Done),
            ("/resume", self.resume, App, Done),
            ("/cancel", self.cancel, App, Done),
        )

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics of the feed, by name."""
        return {"replays": self.jobs.topic}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a client of the management API, and let replays run, while the block runs."""
        async with open_client(self._url, self._login) as self._client, self.jobs.running():
            yield

    @needs(Role.OPERATOR)
    async def groups(self, request: Request) -> Response:
        """Return the groups of an app's dead letters; `{"fetches": true}` where a look has to be asked for by POST."""
        app = await self._asked(request, App)
        if app is None:
            return json_response({"fetches": True})
        groups, seen = Groups(self._masking), 0
        async with self._look(request, app), self._looking.walk(app.vhost, app.app) as walk:
            async for each in walk.letters:
                groups.add(each.letter)
                seen += 1
        return json_response({"total": walk.total, "seen": seen, "groups": groups.shown(), "others": groups.others})

    @needs(Role.OPERATOR)
    async def letters(self, request: Request) -> Response:
        """Return some of a selection, with their secrets masked."""
        page = await self._asked(request, Page)
        if page is None:
            return json_response({"fetches": True})
        if page.mark is not None:
            async with self._look(request, page):
                one = await self._looking.find(page, LONGEST, self._masking)
            return json_response({"letters": [one.shown(self._masking)] if one else [], "skip": 0, "more": False})
        found: list[dict[str, Any]] = []
        place = 0
        async with self._look(request, page), self._looking.walk(page.vhost, page.app, LONGEST) as walk:
            async for each in walk.letters:
                if not page.takes(each.letter, each.size, self._masking):
                    continue
                if len(found) == AT_ONCE:
                    return json_response({"letters": found, "skip": page.skip, "more": True})
                if place >= page.skip:
                    found.append(each.shown(self._masking))
                place += 1
        return json_response({"letters": found, "skip": page.skip, "more": False})

    @needs(Role.OPERATOR)
    async def dry_run(self, request: Request) -> Response:
        """Return the number and the targets of the messages that a replay would publish. Nothing is published."""
        selection = await self._asked(request, Selection)
        if selection is None:
            return json_response({"fetches": True})
        targets: Counter[tuple[str, str]] = Counter()
        seen = 0
        async with (
            self._look(request, selection),
            self._looking.walk(selection.vhost, selection.app, MARKED) as walk,
        ):
            async for each in walk.letters:
                seen += 1
                if selection.takes(each.letter, each.size, self._masking):
                    targets[target_of(each.letter)] += 1
                    if selection.mark is not None:
                        break
        shown = [
            {"exchange": readable(exchange), "key": readable(key), "count": count}
            | ({} if exchange else await self._state(selection.vhost, key))
            for (exchange, key), count in targets.most_common(_MOST_TARGETS)
        ]
        more = {"others": sum(targets.values()) - sum(count for _, count in targets.most_common(_MOST_TARGETS))}
        whole = seen >= walk.total or selection.mark is not None
        return json_response({"count": targets.total(), "whole": whole, "seen": seen, "targets": shown} | more)

    @needs(Role.OPERATOR)
    async def body(self, request: Request) -> Response:
        """Return the body of the dead letter of a mark for editing: unmasked, which the audit log shows."""
        asked = _decoded(await request.body(), Selection)
        asked.check()
        if asked.mark is None:
            raise UsageError("the body of which dead letter? one by its mark")
        async with self._look(request, asked, "open a dead letter for editing"):
            one = await self._looking.find(asked, LONGEST_EDITED, self._masking)
        return json_response({"body": base64.b64encode(one.letter.body).decode() if one else None})

    @needs(Role.OPERATOR)
    async def check(self, request: Request) -> Response:
        """Return whether an edited body is of its stage's type, if a worker has announced that."""
        asked = _decoded(await request.body(), Checked)
        here = asked.vhost == self._login.virtual_host  # that workers are heard in
        schema = self.types.find(asked.app, asked.stage) if here else None
        if schema is None:
            return json_response({"known": False, "problems": []})
        return json_response({"known": True, "problems": await problems(schema, asked.body)})

    @needs(Role.OPERATOR)
    async def replay(self, request: Request) -> Response:
        """Start a replay."""
        asked = await self._change(request, Replayed)
        if asked.rate is not None and not 1 <= asked.rate <= _FASTEST:
            raise UsageError(f"rate={asked.rate}: use 1 to {_FASTEST:,} messages a second, or null for no limit")
        if asked.body is not None and asked.mark is None:
            raise UsageError("an edited body replaces that of one dead letter: select it by its mark")
        body = None if asked.body is None else asked.body.encode()
        job = Job(
            "replay", asked, user_of(request).who,
            rate=asked.rate, expected=_expected(asked), masking=self._masking, body=body,
        )  # fmt: skip
        await self.jobs.start(job)
        return json_response({"started": "replay"})

    @needs(Role.ADMIN)
    async def drop(self, request: Request) -> Response:
        """Start to drop dead letters."""
        asked = await self._change(request, Dropped)
        name = dead_queue(asked.app)
        if asked.confirm != name:
            raise UsageError(f"{asked.confirm!r} is not the queue's name: type {name!r} to drop dead letters")
        who = user_of(request).who
        await self.jobs.start(Job("drop", asked, who, expected=_expected(asked), masking=self._masking))
        return json_response({"started": "drop"})

    @needs(Role.OPERATOR)
    async def pause(self, request: Request) -> Response:
        """Pause the replay or drop of an app."""
        return await self._steer(request, "pause")

    @needs(Role.OPERATOR)
    async def resume(self, request: Request) -> Response:
        """Resume the replay or drop of an app."""
        return await self._steer(request, "resume")

    @needs(Role.OPERATOR)
    async def cancel(self, request: Request) -> Response:
        """Cancel the replay or drop of an app."""
        return await self._steer(request, "cancel")

    async def _steer(self, request: Request, action: Literal["pause", "resume", "cancel"]) -> Response:
        app = _decoded(await request.body(), App)
        await self.jobs.steer(self.jobs.find(app.vhost, app.app), user_of(request).who, action)
        return json_response({"done": action})

    async def _asked(self, request: Request, type_: type[A]) -> A | None:
        """Return what a page wants to look at; None if that changes something on this broker and was not agreed to."""
        if request.method == "POST":
            asked = _decoded(await request.body(), type_)
        else:
            try:
                asked = msgspec.convert(dict(request.query_params), type_, strict=False)
            except msgspec.ValidationError as error:
                raise UsageError(f"the request names no dead letters: {error}") from error
        if isinstance(asked, Selection):
            asked.check()
        return asked if request.method == "POST" or await self._looking.is_free() else None

    @contextlib.asynccontextmanager
    async def _look(self, request: Request, app: App, action: str = "look at dead letters") -> AsyncIterator[None]:
        """Log a look that marks messages or shows secrets, before and after."""
        if request.method != "POST":
            yield
            return
        entry = await self._audit.begin(user_of(request).who, action, app.vhost, dead_queue(app.app))
        try:
            yield
        except RabbitryError as error:
            await self._audit.end(entry, str(error))
            raise
        await self._audit.end(entry)

    async def _change(self, request: Request, type_: type[S]) -> S:
        asked = _decoded(await request.body(), type_)
        asked.check()
        return asked

    async def _state(self, vhost: str, queue: str) -> dict[str, Any]:
        """Return whether a queue is there, and who would take messages from it."""
        try:
            found = await get_object(self._client, f"/api/queues/{place_of(vhost, queue)}?columns=consumers")
        except NothingThere:
            return {"missing": True}
        except Unanswerable:
            return {}
        return {"consumers": number(found.get("consumers"))}


def _expected(asked: Replayed | Dropped) -> int | None:
    return 1 if asked.mark is not None else asked.expected


def _decoded(body: bytes, type_: type[A]) -> A:
    try:
        return decode_json(body, type_)
    except Undecodable as error:
        raise UsageError(f"the request names no dead letters: {error}") from error
