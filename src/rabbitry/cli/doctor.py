"""`rabbitry doctor`: finds out why no messages arrive, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry.apps import Checks, Finding, Untaken, Verdict
from rabbitry.apps.installed import attempt, installed, resolve
from rabbitry.apps.management import Management
from rabbitry.exceptions import ConnectFailed, ConnectionClosed, LoginRefused, VirtualHostRefused
from rabbitry.runtime.addresses import is_loopback
from rabbitry.runtime.listening import by_whom
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL, Connection
    from rabbitry.apps.queue_checks import Look

LISTEN_FOR: Final = 6.0
"""Seconds to wait for samples: an agent without listeners tries again every 5 s."""
_PAGE_WITHIN: Final = 3.0
_PROBE_WITHIN: Final = 3.0

app: typer.Typer = typer.Typer()

_MARKS: Final[dict[Verdict, str]] = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@app.command("doctor")
def doctor(
    context: typer.Context,
    broker: Broker = None,
    page: Annotated[str, typer.Option(metavar="URL", help="The dashboard's address.")] = "http://127.0.0.1:8003/",
    seconds: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for samples.")
    ] = LISTEN_FOR,
    management: Management = None,
    *,
    as_json: Json = False,
) -> None:
    """Check broker, login, exchanges, samples, queues and page, in this order. Exit code 1 if something is wrong.

    Without --broker and RABBITRY_BROKER it uses RABBITMQ_HOST and its siblings, from the environment or .env.

    Example: rabbitry doctor --broker amqp://rabbit.example/
    """
    from rabbitry.amqp.client import parse_url
    from rabbitry.apps import settings

    named = settings.broker_url(settings.variables()) if broker is None else None
    url = parse_url(named or broker_url(context, broker))

    async def work() -> int:
        code = ExitCode.DONE
        async for finding in _examine(url, page, seconds, management):
            _show(finding, as_json=as_json)
            if finding.verdict == "bad":
                unreachable = finding.check in ("broker", "login", "virtual host")
                code = ExitCode.BROKER if unreachable else code or ExitCode.FAILED
        return code

    raise typer.Exit(run_once(work()))


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(finding))
        return
    print(f"{_MARKS[finding.verdict]}  {finding.check}: {one_line(finding.what)}", flush=True)
    if finding.todo:
        print(f"      → {one_line(finding.todo)}", flush=True)


async def _examine(url: BrokerURL, page: str, seconds: float, management: str | None) -> AsyncIterator[Finding]:
    from rabbitry.amqp.client import connect

    try:
        connection = await connect(url, name="rabbitry doctor", recover=False)
    except ConnectFailed as error:
        yield await _other_scheme(url) or _not_connected(error, url)
    else:
        async with connection:
            known = connection.server_properties
            what = f"{url} answers: {known.get('product')} {known.get('version')} ({known.get('platform')})"
            yield Finding("broker", "ok", what)
            yield Finding("login", "ok", f"user {url.user!r}, virtual host {url.virtual_host!r}")
            if connection.blocked is not None:
                todo = "the broker is short of memory or disk: see its log, free some, or raise the limit"
                yield Finding("broker", "bad", f"it blocks publishers: {connection.blocked}", todo)
            first = await _look(management, url)
            async for finding in _connected(connection, seconds):
                yield finding
            async for finding in _queues(first, management, url, seconds):
                yield finding
    async for finding in _page(page):
        yield finding


async def _connected(connection: Connection, seconds: float) -> AsyncIterator[Finding]:
    """Yield the findings of the apps over a connection. An app whose checks fail is reported, and the others go on."""
    for name, checks in _checks():
        if checks.connected is None:
            continue
        try:
            async for finding in checks.connected(connection, seconds):
                yield finding
        except ConnectionClosed:
            raise  # the broker's doing, and no app's
        except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises costs no other app
            yield Finding(
                f"app {name}", "bad", f"its checks failed: {type(error).__name__}: {error}", "tell its authors"
            )


def _checks() -> Iterator[tuple[str, Checks]]:
    """Yield the checks of the apps, by name. Those that do not load are left out: `rabbitry apps` names them."""
    for name, plugin in installed().plugins.items():
        found = None if plugin.checks is None else attempt(plugin, partial(resolve, plugin.checks))
        if isinstance(found, Checks):
            yield name, found


async def _look(management: str | None, url: BrokerURL) -> Look | ConnectFailed:
    from rabbitry.apps.queue_checks import look

    try:
        return await look(management, url)
    except ConnectFailed as error:
        return error


async def _queues(
    first: Look | ConnectFailed, management: str | None, url: BrokerURL, seconds: float
) -> AsyncIterator[Finding]:
    from rabbitry.apps.queue_checks import look_again, problems

    if isinstance(first, ConnectFailed):
        yield Finding("queues", "ok" if management is None else "bad", f"not looked at: {first}")
        return
    found = []
    if first.is_suspicious:
        try:
            found = problems(first, await look_again(first, management, url, seconds), _untaken())
        except ConnectFailed as error:
            yield Finding("queues", "bad", f"not looked at again: {error}")
            return
    for problem in found:
        yield Finding(f"queue {problem.queue}", "bad" if problem.is_bad else "note", problem.what, problem.todo)
    if not found:
        yield Finding("queues", "ok", f"none of {len(first.queues)} is stuck")


def _untaken() -> dict[str, Callable[[Untaken], tuple[bool, str, str] | None]]:
    return {queue: judge for _, checks in _checks() for queue, judge in checks.untaken.items()}


async def _other_scheme(url: BrokerURL) -> Finding | None:
    """Return a finding if the port speaks TLS and the URL does not, or the other way round."""
    import ssl

    host, port = url.hosts[0]
    context = None
    if not url.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is sent
    try:
        async with asyncio.timeout(_PROBE_WITHIN):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                writer.write(b"AMQP\x00\x00\x09\x01")
                answer = await reader.read(4)
            finally:
                writer.close()
    except (OSError, TimeoutError):  # ssl.SSLError is one
        return None
    if answer[:1] != b"\x01" and not answer.startswith(b"AMQP"):
        return None
    if url.tls:
        what, todo = f"port {port} of {host} speaks AMQP without TLS, and the URL says amqps://", "write amqp://"
    else:
        what, todo = f"port {port} of {host} speaks TLS, and the URL says amqp://", "write amqps://"
    return Finding(
        "broker", "bad", what, f"{todo}, or name the other port (5672 is AMQP's, 5671 that of AMQP over TLS)"
    )


def _not_connected(error: ConnectFailed, url: BrokerURL) -> Finding:
    host, port = url.hosts[0]
    if isinstance(error, LoginRefused):
        todo = "check user and password in --broker, RABBITRY_BROKER or RABBITMQ_USER and RABBITMQ_PASSWORD"
        if url.user == "guest" and not is_loopback(host):
            todo = "guest may log in only from the broker's own machine: create a user there (rabbitmqctl add_user)"
        return Finding("login", "bad", str(error), todo)
    if isinstance(error, VirtualHostRefused):
        todo = "check its name (%2F is /), that it exists (rabbitmqctl list_vhosts), and the user's permissions there"
        return Finding("virtual host", "bad", str(error), todo)
    if "is not trusted" in str(error):
        todo = "name the file of the authority that signed it: ?cacertfile=FILE at the end of the URL"
        return Finding("broker", "bad", str(error), todo)
    if "no broker at" not in str(error):  # somebody took the connection, and then did not speak AMQP
        holder = by_whom(port) if is_loopback(host) else ""
        todo = f"port {port} is taken{holder} by something that is no AMQP broker: name the broker's own port"
        return Finding("broker", "bad", str(error), todo)
    todo = "start one (rabbitry broker, or rabbitry up), or name the right host and port: --broker amqp://host:5672/"
    if not is_loopback(host):
        todo += "; a firewall between here and there may be closed for that port"
    return Finding("broker", "bad", str(error), todo)


async def _page(page: str) -> AsyncIterator[Finding]:
    import httpx

    try:
        async with httpx.AsyncClient(timeout=_PAGE_WITHIN, trust_env=False) as client:
            answer = await client.get(httpx.URL(page).join("healthz"))
    except httpx.InvalidURL as error:
        yield Finding("page", "bad", f"{page} is no URL: {error}", "such as http://127.0.0.1:8003/")
        return
    except httpx.HTTPError as error:
        yield Finding(
            "page", "note", f"nothing answers at {page}: {error}", "rabbitry web, or rabbitry up; or --page URL"
        )
        return
    if answer.status_code == 401:
        yield Finding("page", "ok", f"{page} answers and asks for a password")
        return
    if answer.status_code not in (200, 503) or "broker" not in answer.text:
        todo = "another program has that port: name the page's with --page, or give it another with --web-port"
        yield Finding("page", "bad", f"{page} answers {answer.status_code}, and not as the dashboard does", todo)
        return
    if answer.status_code == 503:
        yield Finding("page", "bad", f"{page} answers, without a broker: {answer.text}", "its log says which and why")
    else:
        yield Finding("page", "ok", f"{page} answers: {answer.text}")
    yield await _websocket(page)


async def _websocket(page: str) -> Finding:
    import websockets

    address = "ws" + page.removeprefix("http").rstrip("/") + "/ws"
    origin = page.rstrip("/")
    try:
        async with asyncio.timeout(_PAGE_WITHIN):
            async with websockets.connect(address, origin=websockets.Origin(origin), proxy=None) as socket:
                await socket.recv()
    except (OSError, TimeoutError, websockets.WebSocketException) as error:
        todo = "a proxy in between must pass on WebSockets and the Host header as the browser sends it"
        return Finding("WebSocket", "bad", f"{address}: {error or 'no answer'}", todo)
    return Finding("WebSocket", "ok", f"{address} is let through")
