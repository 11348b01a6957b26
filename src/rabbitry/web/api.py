"""`/api`: the topics of the feed for programs, and the OpenAPI document of all routes of the dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Query, Request, Response

from rabbitry._ids import NoSuchID
from rabbitry.apps import Role, needs
from rabbitry.apps.api import SCHEMAS, answers, json_response, route_class
from rabbitry.exceptions import ConnectFailed
from rabbitry.web.answers import TopicNow
from rabbitry.web.feed.tables import Table
from rabbitry.web.feed.topics import Params, Part, Topic
from rabbitry.web.login.roles import require
from rabbitry.web.sources.details import DetailsTopic

FRESH: Final = 10.0
"""Seconds for which the last state of a topic is returned again."""
PATIENCE: Final = 20.0
"""Seconds to wait for a newer state."""
_LONGEST: Final = 1000

Text = Annotated[str | None, Query(max_length=_LONGEST)]


def routes(app: FastAPI, topics: Mapping[str, Topic]) -> APIRouter:
    """Return the routes, below `/api`.

    Args:
        app: The dashboard, whose routes the OpenAPI document describes.
        topics: The feed's topics by name.
    """
    router = APIRouter(route_class=route_class(), tags=["live"])

    @router.get("/openapi.json", include_in_schema=False)
    @needs(Role.VIEWER)
    async def document() -> Response:
        return json_response(described(app))

    @router.get("/topics", summary="The names of what the pages show live", responses=answers(list[str]))
    @needs(Role.VIEWER)
    async def names() -> Response:
        return json_response(sorted(topics))

    @router.get("/topics/{topic}", summary="What the pages show live, as it is now", responses=answers(TopicNow))
    @needs(Role.VIEWER)
    async def show(
        request: Request,
        topic: str,
        sort: Annotated[list[str] | None, Query(description="of a table: columns; -NAME for the other order")] = None,
        filter: Annotated[Text, Query(description="of a table: words that rows have to match")] = None,
        first: Annotated[int | None, Query(description="of a table: the first row, from 0", ge=0)] = None,
        count: Annotated[int | None, Query(description="of a table: rows, 500 at most", ge=0, le=500)] = None,
        vhost: Annotated[Text, Query(description="of the topics queue and exchange: its virtual host")] = None,
        name: Annotated[
            Text, Query(description="of the topics queue, exchange, connection and channel: its name")
        ] = None,
    ) -> Response:
        found = topics.get(topic)
        if found is None:
            raise NoSuchID(f"there is no topic {topic[:40]!r}; /api/topics lists them")
        require(request, found.role)
        params: dict[str, object] = {}
        if isinstance(found, Table):
            params = {"sort": sort, "filter": filter, "first": first, "count": count}
        elif isinstance(found, DetailsTopic):
            params = {member: {"vhost": vhost or "/", "name": name}[member] for member in found.members}
        return json_response(await _now(topic, found, {key: value for key, value in params.items() if value}))

    return router


def described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of a dashboard, in which the shapes of `answers` are components.

    Apps may give different shapes the same name: those of later routes get a number.

    Args:
        app: The dashboard.
    """
    document: dict[str, Any] = app.openapi()  # made once
    components = document.setdefault("components", {}).setdefault("schemas", {})
    known: dict[str, Any] = dict(components)
    for operation in (each for path in document["paths"].values() for each in path.values()):
        for answer in operation["responses"].values():
            media = answer.get("content", {}).get("application/json", {})
            shapes = media.get("schema", {}).pop("$defs", {})
            suffix = next(suffix for suffix in _suffixes() if _fits(shapes, suffix, known))
            known |= {name + suffix: shape for name, shape in shapes.items()}
            names = {SCHEMAS.format(name=name): SCHEMAS.format(name=name + suffix) for name in shapes}
            components.update({name + suffix: _renamed(shape, names) for name, shape in shapes.items()})
            if shapes:
                media["schema"] = _renamed(media["schema"], names)
    return document


def _suffixes() -> Iterator[str]:
    yield ""
    yield from map(str, itertools.count(2))


def _fits(shapes: Mapping[str, Any], suffix: str, known: Mapping[str, Any]) -> bool:
    """Return whether no other shapes have these names."""
    return all(known.get(name + suffix, shape) == shape for name, shape in shapes.items())


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with other references, those of a discriminator included."""
    if isinstance(node, str):
        return names.get(node, node)
    if isinstance(node, dict):
        return {key: _renamed(each, names) for key, each in node.items()}
    return [_renamed(each, names) for each in node] if isinstance(node, list | tuple) else node


async def _now(name: str, topic: Topic, params: Params) -> Part:
    """Return the state of a topic, once its source has updated it lately. Raises ConnectFailed if it never did."""
    told = asyncio.Event()
    waiting = topic.subscribe(params, told.set)  # wakes the source
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while (part := _whole(topic, params)).get("at", 0) < time.time() - FRESH:
                    await told.wait()
                    told.clear()
        part = _whole(topic, params)
    finally:
        topic.unsubscribe(waiting)
    if "at" not in part:
        raise ConnectFailed(f"no data for topic {name!r}: see 'reason' in /api/topics/sources")
    return part


def _whole(topic: Topic, params: Params) -> Part:
    seen = topic.subscribe(params, _nothing)
    try:
        return seen.take() or {}
    finally:
        topic.unsubscribe(seen)


def _nothing() -> None:
    """Do nothing: the bell of a subscription that is read only once."""
