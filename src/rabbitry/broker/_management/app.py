"""The application: authenticates requests, calls their handlers, and answers in RabbitMQ's words."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.states import ConnectionState
from rabbitry.broker._errors import Refusal
from rabbitry.broker._login import may_come_from
from rabbitry.broker._management.call import CREATED, DONE, TAGS, Answer, Call, Handler, only, refused
from rabbitry.broker._management.changes import Changes
from rabbitry.broker._management.definitions import BadDefinition
from rabbitry.broker._management.encoding import encode
from rabbitry.broker._management.guard import Guard
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import Rates
from rabbitry.broker._management.routes import ROUTES
from rabbitry.broker.access import User
from rabbitry.broker.broker import Broker
from rabbitry.exceptions import ProtocolViolation, UsageError

_HANG_UP: Final = 0.05
"""Seconds that an answer waits for connections that it closes."""
_MOST_BODY: Final = 1 << 20
"""Most bytes of a request's body, which is decoded in one step."""
_MOST_PUBLISH: Final = 16 << 20
"""Most bytes of a publish, nearly all of them its payload, which takes little time."""
_MOST_DEFINITIONS: Final = 128 << 20
"""Most bytes of definitions, which are decoded element by element."""
_ROOT: Final = """<!doctype html><html lang="en"><title>Rabbitry's broker</title>
<h1>Rabbitry's embedded broker</h1>
<p>This is the management API of an AMQP broker with the behaviour of RabbitMQ 3.10.8. It is for programs:
<a href="api/overview">api/overview</a>, <a href="api/queues">api/queues</a> and the others, as in RabbitMQ.</p>
<p>The dashboard for people is another program: <code>rabbitry up</code> or <code>rabbitry web</code>, by default on
<a href="http://127.0.0.1:8003/">port 8003</a>. On a terminal: <code>rabbitry queues --watch</code>.</p></html>"""

_CLI: Final = """<!doctype html><html lang="en"><title>rabbitmqadmin</title>
<h1>rabbitmqadmin</h1>
<p>This broker is not RabbitMQ and does not serve its <code>rabbitmqadmin</code>, but works with it. It comes with
RabbitMQ, and is among its
<a href="https://github.com/rabbitmq/rabbitmq-server/blob/v3.10.8/deps/rabbitmq_management/bin/rabbitmqadmin">sources</a>.
Name this host and port with <code>--host</code> and <code>--port</code>.</p></html>"""


def make_app(broker: Broker, rates: Rates, pace: Pace, changes: Changes) -> ASGIApp:
    """Return the ASGI application for a broker. It runs on the broker's own loop."""

    async def root(request: Request) -> Response:
        return HTMLResponse(_ROOT)

    async def cli(request: Request) -> Response:
        status = 404 if request.url.path.endswith("rabbitmqadmin") else 200
        return HTMLResponse(_CLI, status)

    routes = [
        Route("/", root),
        Route("/api", root),
        *(Route(path, cli) for path in ("/cli", "/cli/index.html", "/cli/rabbitmqadmin")),
    ]
    for path, methods, handler in ROUTES:
        routes.append(Route(path, _endpoint(broker, rates, pace, changes, handler), methods=list(methods)))

    async def missing(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "Object Not Found", "reason": "Not Found"}, 404)

    app = Starlette(routes=routes, exception_handlers={404: missing})
    return Guard(_RawPaths(app))


class _RawPaths:
    """Routes by the raw path, so that the %2F of a virtual host stays one segment."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or scope["path"].encode()
            path = raw.split(b"?")[0].decode("latin-1")
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)


def _endpoint(
    broker: Broker, rates: Rates, pace: Pace, watched: Changes, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            user = _authenticate(broker, request)
            body = await _read(request)
            changes = broker.journal.changes
            result = handler(Call(broker, rates, pace, watched, request, user, body))
            if inspect.isawaitable(result):
                result = await result
            broker.dispatcher.dispatch()
            if broker.journal.changes != changes:
                await broker.journal.committed_now()
            if request.method == "DELETE":
                await _hung_up(broker)
        except Answer as early:
            if early.status == 401 and early.body is None:
                return Response(status_code=401, headers={"www-authenticate": 'Basic realm="RabbitMQ Management"'})
            return JSONResponse(early.body, early.status)
        except Refusal as error:
            if error.reply_code is Reply.ACCESS_REFUSED:
                return JSONResponse(refused().body, 401)
            return JSONResponse({"error": "bad_request", "reason": error.reply_text.partition(" - ")[2]}, 400)
        except (BadDefinition, ProtocolViolation, UsageError) as error:
            return JSONResponse({"error": "bad_request", "reason": str(error)}, 400)
        if isinstance(result, Response):
            return result
        if result is CREATED or result is DONE:
            return Response(status_code=201 if result is CREATED else 204)
        query = request.query_params
        if isinstance(result, dict) and "columns" in query:
            result = only(result, query["columns"])
        return Response(encode(result), media_type="application/json")

    return answer


async def _hung_up(broker: Broker) -> None:
    """Wait briefly for connections that are being closed, so that they are gone when the client gets its answer."""
    closing = [item.closed for item in broker.connections if item.core.state is ConnectionState.CLOSING]
    if closing:
        await asyncio.wait(closing, timeout=_HANG_UP)


def _authenticate(broker: Broker, request: Request) -> User:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise Answer(401)
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Answer(401, "not_authorised", "Login failed") from error
    address = request.client.host if request.client is not None else ""
    if not (broker.access.is_password(name, password) and may_come_from(name, address)):
        raise Answer(401, "not_authorised", "Login failed")
    user = broker.access.users[name]
    if not set(user.tags) & set(TAGS):
        raise Answer(401, "not_authorised", "Not management user")
    return user


async def _read(request: Request) -> bytearray:
    path = request.url.path
    most = _MOST_PUBLISH if path.endswith("/publish") else _MOST_BODY
    most = _MOST_DEFINITIONS if path.startswith("/api/definitions") else most
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Answer(413, "bad_request", f"the request's body must not have more than {most} bytes")
    return body
