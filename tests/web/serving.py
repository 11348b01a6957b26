"""A dashboard in this process, and a client of it that checks its answers against the OpenAPI document."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from rabbitry.apps.settings import Settings
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.api import described
from rabbitry.web.login.gate import Access
from rabbitry.web.login.sessions import TOKEN_HEADER
from rabbitry.web.server import create_app
from tests.web.described import Described
from tests.web.login.dashboards import token_in

_documents: dict[tuple[bool, bool], dict[str, Any]] = {}
"""The OpenAPI document of a dashboard by what its routes depend on: to make it takes a tenth of a second."""


@dataclass
class System:
    """A broker, and whether it is RabbitMQ."""

    broker: str
    management: str
    is_rabbitmq: bool


@contextlib.asynccontextmanager
async def served(
    broker: str, management: str | None, place: str, *, access: Access | None = None, password: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a dashboard; the client has the token of its pages, and its URLs are relative to a place in it."""
    (listener,) = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    app = create_app(Settings(port=0, broker=broker, password=password), [], management, access=access)
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/{place}"
        kind = (access is None, password is None)
        if kind not in _documents:
            _documents[kind] = described(app)
        hooks = {"response": [Described(_documents[kind]).check]}
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, event_hooks=hooks) as client:
            auth = httpx.USE_CLIENT_DEFAULT if password is None else ("any", password)
            await take_token(client, auth)
            yield client
    finally:
        stop.set()
        await serving


async def take_token(
    client: httpx.AsyncClient, auth: tuple[str, str] | httpx._client.UseClientDefault = httpx.USE_CLIENT_DEFAULT
) -> None:
    """Send the token of the dashboard's pages with each of the client's requests."""
    client.headers[TOKEN_HEADER] = token_in((await client.get("", auth=auth)).text)
    client.cookies.clear()
