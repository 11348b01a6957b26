"""What each role may do: every route and every topic, with every role."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import websockets
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from rabbitry.apps import Plugin, Role, Site, User, needs
from rabbitry.apps.exceptions import Forbidden, PluginError
from rabbitry.apps.users import USER
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.api import routes as api_routes
from rabbitry.web.feed.pages import Feed
from rabbitry.web.feed.topics import Value
from rabbitry.web.login.roles import Roles
from rabbitry.web.server import Mount, mounts
from tests.web.login.dashboards import NAMES, PASSWORD, client, dashboard, example, routes_of, running, sign_in

ROUTES: Final = {
    "anyone": {
        "GET /login/", "GET /session", "POST /session", "POST /invitation", "GET /static", "GET /oidc",
        "GET /oidc-callback",
    },
    "member": {"GET /static/views.js", "POST /logout"},
    "viewer": {
        "GET /", "GET /queues/", "GET /exchanges/", "GET /connections/", "GET /channels/", "GET /consumers/",
        "GET /flows/", "GET /flows/api/asyncapi", "GET /dead/",
        "GET /audit/", "GET /audit/api/entries", "GET /api/history", "GET /api/history/series",
        "GET /way/", "GET /raw/", "GET /way/api/chain", "GET /way/api/recent", "GET /way/api/search",
        "GET /way/api/queue",
        "GET /healthz", "WS /feed",
        "GET /metrics", "GET /metrics/detailed", "GET /api/topics", "GET /api/topics/{topic}", "GET /api/openapi.json",
        "GET /api/machines",
        "GET /monitor/", "GET /monitor/static", "WS /ws",
        "GET /grading/", "GET /grading/static", "GET /grading/api/overview", "GET /grading/api/submissions/{identity}",
        "GET /grading/api/inbox/{role}", "GET /grading/api/requests", "GET /grading/api/stats", "GET /grading/api/room",
        "GET /grading/api/releases",
        "GET /crawl/", "GET /crawl/static", "GET /crawl/api/status", "GET /crawl/api/hosts", "GET /crawl/api/search",
        "GET /crawl/api/why", "GET /crawl/api/outcomes", "WS /crawl/ws",
    },
    "operator": {
        "GET /queues/api/messages", "POST /queues/api/messages",
        "POST /flows/api/pause", "POST /flows/api/resume",
        "GET /dead/api/groups", "POST /dead/api/groups", "GET /dead/api/letters", "POST /dead/api/letters",
        "GET /dead/api/dry-run", "POST /dead/api/dry-run", "POST /dead/api/check", "POST /dead/api/replay",
        "POST /dead/api/pause", "POST /dead/api/resume", "POST /dead/api/cancel", "POST /dead/api/body",
        "GET /grading/api/unsent/{role}", "POST /grading/api/unsent/{role}/{identity}",
        "GET /grading/api/files/{identity}", "GET /grading/api/texts/{identity}",
        "GET /grading/api/changes/{identity}", "GET /grading/api/inbox/{role}/{identity}",
        "GET /grading/api/inbox/{role}/{identity}/before",
        "POST /grading/api/submissions", "POST /grading/api/inbox/{role}/{identity}", "POST /crawl/api/command",
        "POST /grading/api/submissions/{identity}/requests", "POST /grading/api/requests/{number}",
        "GET /grading/api/pictures/{identity}/{number}",
        "GET /grading/api/similar", "POST /grading/api/similar", "GET /grading/api/similar/{one}/{other}",
    },
    "admin": {
        "POST /queues/api/purge", "POST /queues/api/delete", "POST /dead/api/drop",
        "POST /queues/api/declare", "POST /exchanges/api/declare",
        "POST /exchanges/api/delete", "POST /exchanges/api/bind", "POST /exchanges/api/unbind",
        "POST /connections/api/close",
        "GET /grading/api/regrades", "POST /grading/api/regrades", "POST /grading/api/regrades/trial",
        "GET /grading/api/regrades/{run}", "POST /grading/api/submissions/{identity}/acceptance",
        "POST /grading/api/submissions/{identity}/withdrawal", "POST /grading/api/releases",
    },
}  # fmt: skip
"""Role → the routes that it is the least one for. A new route is added here, with care."""
TOPICS: Final = {
    "viewer": {
        "sources", "topology", "attention", "broker", "queue", "exchange", "connection", "channel",
        "queues", "exchanges", "connections", "channels",
        "consumers", "bindings", "stages", "nodes", "flows", "drift", "replays",
    },
    "operator": {"raw"},
}  # fmt: skip
"""Role → the topics of the feed that it is the least one for."""
_NAMED: Final = {"queue", "exchange", "connection", "channel", "raw"}
"""Topics that want the name of something that is there."""
_ASKED: Final = {"error": "sign in first"}
_NEEDED: Final = {route: Role[role.upper()] for role, routes in ROUTES.items() for route in routes}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return dashboard(tmp_path, mounts(Site(broker="amqp://127.0.0.1:1/")))


def test_every_route_is_in_the_table(app: FastAPI) -> None:
    assert {*routes_of(app)} == {*_NEEDED}


@pytest.mark.parametrize("role", ["anyone", *NAMES])
async def test_every_route_is_refused_to_every_lesser_role(app: FastAPI, role: str) -> None:
    async with client(app) as http:
        if role != "anyone":
            assert (await sign_in(http, NAMES[role])).status_code == 200
        for route, needed in _NEEDED.items():
            method, _, path = route.partition(" ")
            if method == "WS" or route == "POST /logout":
                continue  # the one has a test of its own; the other would end the session
            answer = await http.request(method, example(path))
            is_refused = "needs the role" in answer.text or answer.json() == _ASKED if answer.is_client_error else False
            assert is_refused == (needed > Role[role.upper()]), (route, answer.status_code, answer.text)
            assert not is_refused or answer.status_code in (401, 403)


async def _served(app: FastAPI) -> AsyncIterator[int]:
    (listener,) = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        await serving


async def test_every_websocket_and_every_topic_asks_for_its_role(app: FastAPI) -> None:
    async with client(app) as http:
        listed = (await http.get("/api/topics", auth=(NAMES["viewer"], PASSWORD))).json()
    assert {*listed} == {topic for topics in TOPICS.values() for topic in topics}
    sockets = [route.removeprefix("WS ") for route in _NEEDED if route.startswith("WS ")]
    assert {_NEEDED[f"WS {path}"] for path in sockets} == {Role.VIEWER}
    async for port in _served(app):
        for path in sockets:
            url = f"ws://127.0.0.1:{port}{path}"
            with pytest.raises(websockets.InvalidStatus) as error:
                async with websockets.connect(url, proxy=None):
                    pass
            assert error.value.response.status_code == 401
        for role, name in NAMES.items():
            headers = [("Authorization", _basic(name))]
            if role == "member":
                for path in sockets:
                    with pytest.raises(websockets.InvalidStatus) as error:
                        await websockets.connect(f"ws://127.0.0.1:{port}{path}", proxy=None, additional_headers=headers)
                    assert error.value.response.status_code == 403
                continue
            async with asyncio.timeout(120):
                async with websockets.connect(
                    f"ws://127.0.0.1:{port}/feed", proxy=None, additional_headers=headers
                ) as socket:
                    await _see_topics(socket, Role[role.upper()])


async def _see_topics(socket: websockets.ClientConnection, role: Role) -> None:
    for place, (needed, topics) in enumerate(TOPICS.items()):
        is_allowed = role >= Role[needed.upper()]
        told = sorted(topics - _NAMED if is_allowed else topics)
        numbers = range(100 * place, 100 * place + len(told))
        for number, topic in zip(numbers, told, strict=True):
            await socket.send(json.dumps({"open": number, "topic": topic, "params": {}}))
        wanted = {*numbers}
        while wanted:
            for part in json.loads(await socket.recv()).get("parts", []):
                if part["id"] in wanted:
                    wanted.discard(part["id"])
                    assert ("error" in part) is not is_allowed, part


def _basic(name: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()


async def test_what_names_no_role_needs_an_admin_and_apps_have_their_own_rule(tmp_path: Path) -> None:
    made = APIRouter()

    @made.get("/seen")
    @made.post("/seen")
    @made.delete("/seen")
    async def seen() -> str:
        return "seen"

    @made.post("/purge")
    @needs(Role.ADMIN)
    async def purge() -> str:
        return "purged"

    app = dashboard(tmp_path, [Mount(Plugin(name="board", title="X"), made)])

    @app.get("/forgotten")
    async def forgotten() -> str:
        return "forgotten"

    allowed: dict[str, set[str]] = {
        "mia": set(),
        "vera": {"GET /board/seen"},
        "otto": {"GET /board/seen", "POST /board/seen"},
        "ada": {"GET /board/seen", "POST /board/seen", "DELETE /board/seen", "POST /board/purge", "GET /forgotten"},
    }
    for name, routes in allowed.items():
        async with client(app) as http:
            await sign_in(http, name)
            for route in allowed["ada"]:
                answer = await http.request(*route.split(" "))
                assert answer.status_code == (200 if route in routes else 403), (name, route)


def test_a_route_whose_role_can_not_be_checked_is_refused() -> None:
    inner, outer = APIRouter(), APIRouter()
    inner.mount("/files", FastAPI())
    outer.include_router(inner)
    with pytest.raises(PluginError, match="'/files' is a Mount"):
        Roles().add_app("board", outer)


async def test_a_new_topic_needs_an_admin_unless_it_says_otherwise(tmp_path: Path) -> None:
    feed = Feed({"new": Value({"a": 1})})
    for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
        with feed.page(role=role) as page:
            page.receive('{"open": 1, "topic": "new"}')
            message = page.take()
            assert isinstance(message, dict)
            assert ("error" in message["parts"][0]) == (role is not Role.ADMIN)


async def test_a_topic_needs_its_role_over_the_api_too() -> None:
    app, value = FastAPI(), Value({"a": 1})
    value.at = time.time()
    app.include_router(api_routes(app, {"new": value}), prefix="/api")
    app.add_exception_handler(Forbidden, _refused)

    @app.middleware("http")
    async def as_user(request: Request, serve_on: RequestResponseEndpoint) -> Response:
        request.scope[USER] = User("x", Role[request.headers["x-role"]], "127.0.0.1")
        return await serve_on(request)

    async with client(app) as http:
        for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
            answer = await http.get("/api/topics/new", headers={"x-role": role.name})
            assert answer.status_code == (200 if role is Role.ADMIN else 403)


async def _refused(_: Request, error: Exception) -> Response:
    return Response(str(error), 403)


async def test_read_only_lets_nobody_change_anything(tmp_path: Path) -> None:
    app = dashboard(tmp_path, is_read_only=True)
    async with client(app) as http:
        await sign_in(http, "ada")
        assert (await http.get("/session")).json() == {"name": "ada", "role": "viewer", "has_login": True}
        assert (await http.post("/queues/api/purge", json={})).status_code == 403
    open_ = dashboard(tmp_path, users=tmp_path / "none.json", is_read_only=True)
    async with running(open_), client(open_) as http:
        assert (await http.get("/session")).json() == {"name": "", "role": "viewer", "has_login": False}
        assert '<p class="who">Read-only</p>' in (await http.get("/audit/")).text
