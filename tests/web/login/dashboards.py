"""Dashboards in this process whose users need not sign in with slow hashes, and clients of them."""

import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts
from starlette.routing import Mount as Mounted

import rabbitry
from rabbitry.apps.passwords import hash_password
from rabbitry.apps.settings import Settings
from rabbitry.web.login.gate import Access
from rabbitry.web.login.sessions import TOKEN_HEADER
from rabbitry.web.server import Mount, create_app, open_history

PASSWORD = "correct horse"
NAMES = {"member": "mia", "viewer": "vera", "operator": "otto", "admin": "ada"}
"""Role → the name of a user who has it."""


def users_file(folder: Path, roles: Mapping[str, str] | None = None) -> Path:
    """Write a file of users, whose hashes take no time."""
    file = folder / "users.json"
    hashed = hash_password(PASSWORD, log_cost=1)
    names = roles or {name: role for role, name in NAMES.items()}
    users = {name: {"role": role, "password": hashed} for name, role in names.items()}
    file.write_bytes(msgspec.json.encode({"users": users}))
    file.chmod(0o600)
    return file


def dashboard(folder: Path, mounted: Sequence[Mount] = (), **access: object) -> FastAPI:
    """Return a dashboard with a user for each role. Nothing listens at its broker's address."""
    settings = Settings(port=0, broker="amqp://127.0.0.1:1/")
    options = access if "users" in access else {"users": users_file(folder)} | access
    return create_app(settings, mounted, "http://127.0.0.1:1", open_history(settings.broker), Access(**options))  # type: ignore[arg-type] # a test's own


@contextlib.asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Run the background work of a dashboard. The test's environment keeps it away from this user's folders."""
    assert os.environ["XDG_DATA_HOME"]
    async with app.router.lifespan_context(app):
        yield


def client(app: FastAPI, address: str = "127.0.0.1", url: str = "http://127.0.0.1:8003") -> httpx.AsyncClient:
    """Return a client of a dashboard, like a browser without scripts."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1)), base_url=url, timeout=60
    )


def token_in(page: str) -> str:
    """Return the token in a page."""
    found = re.search(r'<meta name="rabbitry-token" content="([\w-]{30,})">', page)
    assert found is not None
    return found[1]


async def sign_in(http: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    """Sign in as the page does; the client has the cookie and the token then."""
    http.headers[TOKEN_HEADER] = token_in((await http.get("/login/")).text)
    answer = await http.post("/session", json={"name": name, "password": password})
    if answer.is_success:
        http.headers[TOKEN_HEADER] = token_in((await http.get("/login/")).text)
    return answer


def routes_of(app: FastAPI) -> Iterator[str]:
    """Yield the routes of a dashboard: method and path, where a folder of files is a GET of its place."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, Mounted):
            yield f"GET {route.path}"
        elif isinstance(route, APIWebSocketRoute):
            yield f"WS {context.path}"
        else:
            assert isinstance(route, APIRoute), route
            for method in route.methods or ():
                yield f"{method} {context.path}"


def example(path: str, role: str = "assistant") -> str:
    """Return a path that a route serves. role: whose inbox, in routes of grading."""
    folder = Path(rabbitry.__file__).parent
    if path.endswith("/static"):
        of_app = "web" if path == "/static" else f"apps{path.removesuffix('/static')}"
        return f"{path}/{next((folder / of_app / 'static').glob('*.js')).name}"
    return path.replace("{identity}", "1").replace("{topic}", "none").replace("{role}", role)
