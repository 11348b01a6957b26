"""The history's part of the API."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from rabbitry.apps import Role, needs
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.web.answers import NamedSeries
from rabbitry.web.history import Chart, History, Span

_LONGEST: Final = 300


def routes(history: History) -> APIRouter:
    """Return the routes, below `/api/history`."""
    router = APIRouter(route_class=route_class(), tags=["history"])

    @router.get("", summary="The numbers of a thing over the last hour or week", responses=answers(Chart))
    @needs(Role.VIEWER)
    async def chart(
        app: Annotated[str, Query(description="broker, or the name of an app", max_length=_LONGEST)],
        subject: Annotated[
            str, Query(description="the id of the thing; empty for the broker", max_length=_LONGEST)
        ] = "",
        span: Annotated[Span, Query(description="hour: by the second; week: by the minute")] = "hour",
    ) -> Response:
        return json_response(await history.chart(app, subject, span))

    @router.get("/series", summary="The series that have numbers", responses=answers(list[NamedSeries]))
    @needs(Role.VIEWER)
    async def series() -> Response:
        found: list[dict[str, Any]] = [one._asdict() for one in await history.series()]
        return json_response(found)

    return router
