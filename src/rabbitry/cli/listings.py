"""`rabbitry queues|exchanges|bindings|connections|channels|consumers`: listings from a broker's management API."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from rabbitry.apps.management import Management, get, management_url, open_client
from rabbitry.exceptions import ConnectFailed, VirtualHostRefused
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json, say
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    import httpx
    from rich.table import Table

app: typer.Typer = typer.Typer()
_PERIOD = 2.0
Watch = Annotated[bool, typer.Option("--watch", help=f"List again each {_PERIOD:g} s until Ctrl-C.")]

_COLUMNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "queues": {
            "vhost": "vhost",
            "name": "name",
            "type": "type",
            "durable": "durable",
            "ready": "messages_ready",
            "unacked": "messages_unacknowledged",
            "consumers": "consumers",
            "in/s": "message_stats.publish_details.rate",
            "out/s": "message_stats.deliver_get_details.rate",
            "state": "state",
        },
        "exchanges": {
            "vhost": "vhost",
            "name": "name",
            "type": "type",
            "durable": "durable",
            "auto-delete": "auto_delete",
            "internal": "internal",
            "in/s": "message_stats.publish_in_details.rate",
            "out/s": "message_stats.publish_out_details.rate",
        },
        "bindings": {
            "vhost": "vhost",
            "exchange": "source",
            "routing key": "routing_key",
            "to": "destination_type",
            "destination": "destination",
            "arguments": "arguments",
        },
        "connections": {
            "name": "user_provided_name",
            "from": "name",
            "user": "user",
            "vhost": "vhost",
            "state": "state",
            "channels": "channels",
            "TLS": "ssl",
            "received B/s": "recv_oct_details.rate",
            "sent B/s": "send_oct_details.rate",
        },
        "channels": {
            "channel": "name",
            "user": "user",
            "vhost": "vhost",
            "confirms": "confirm",
            "prefetch": "prefetch_count",
            "unacked": "messages_unacknowledged",
            "unconfirmed": "messages_unconfirmed",
            "consumers": "consumer_count",
            "state": "state",
        },
        "consumers": {
            "vhost": "queue.vhost",
            "queue": "queue.name",
            "consumer tag": "consumer_tag",
            "channel": "channel_details.name",
            "ack": "ack_required",
            "prefetch": "prefetch_count",
            "active": "active",
        },
    }
)
"""Listing → its columns: heading → path in an item of the API."""


_WHERE = "Those of the virtual host in --broker; if it is / or missing, of all that the user may see."


def _add_command(what: str, doc: str) -> None:
    def command(
        context: typer.Context, broker: Broker = None, management: Management = None, *, as_json: Json = False,
        watch: Watch = False,
    ) -> None:  # fmt: skip
        _list(context, what, broker, management, as_json=as_json, watch=watch)

    summary, example = doc.split("\n\n")
    app.command(what, help=f"{summary}\n\n{_WHERE}\n\n{example}")(command)


for _what, _doc in {
    "queues": "List the broker's queues.\n\nExample: rabbitry queues --watch",
    "exchanges": "List the broker's exchanges.\n\nExample: rabbitry exchanges --json",
    "bindings": "List the broker's bindings; the default exchange's name is empty.\n\nExample: rabbitry bindings",
    "connections": "List the broker's connections.\n\nExample: rabbitry connections --management http://127.0.0.1:15672",
    "channels": "List the channels of the broker's connections.\n\nExample: rabbitry channels",
    "consumers": "List the consumers and their queues.\n\nExample: rabbitry consumers",
}.items():
    _add_command(_what, _doc)


def _list(
    context: typer.Context, what: str, broker: str | None, management: str | None, *, as_json: bool, watch: bool
) -> None:
    from rabbitry.amqp.client import parse_url

    login = parse_url(broker_url(context, broker))
    url = management_url(management, login)
    vhost = None if login.virtual_host == "/" else login.virtual_host

    async def work() -> int:
        async with open_client(url, login) as client:
            items = await _get(client, what, vhost)
            if not watch:
                _show(what, items, as_json=as_json)
                return ExitCode.DONE
            with _Screen(what, as_json=as_json) as screen:
                while True:
                    screen.show(items)
                    await asyncio.sleep(_PERIOD)
                    try:
                        items = await _get(client, what, vhost)
                    except ConnectFailed as error:
                        screen.say(one_line(str(error)))

    raise typer.Exit(run_once(work(), is_endless=watch))


async def _get(client: httpx.AsyncClient, what: str, vhost: str | None) -> list[dict[str, Any]]:
    """Get a listing, of one virtual host or of all. Raises ConnectFailed, also if the virtual host does not exist."""
    if vhost is None:
        return await get(client, f"/api/{what}")
    name = quote(vhost, safe="")
    # A missing virtual host has no connections and no channels, and the API says no more than that.
    if vhost not in [found.get("name") for found in await get(client, "/api/vhosts")]:
        raise VirtualHostRefused(f"no virtual host {vhost!r}, or the user may not see it, says {client.base_url}")
    is_of_clients = what in ("connections", "channels")
    return await get(client, f"/api/vhosts/{name}/{what}" if is_of_clients else f"/api/{what}/{name}")


class _Screen:
    """Shows a listing that is updated in place on a terminal, and printed again elsewhere."""

    def __init__(self, what: str, *, as_json: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._what, self._as_json = what, as_json
        in_place = sys.stdout.isatty() and not as_json
        self._live = Live(console=Console(), auto_refresh=False, vertical_overflow="visible") if in_place else None

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, items: list[dict[str, Any]]) -> None:
        if self._live is None:
            _show(self._what, items, as_json=self._as_json)
        else:
            self._live.update(_table(self._what, items) if items else f"no {self._what}", refresh=True)

    def say(self, text: str) -> None:
        say(text)


def _show(what: str, items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for item in items:
            print_json(item)
        return
    if not items:
        say(f"no {what}")
        return
    from rich.console import Console

    # Piped, a line stays a line, however long.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(_table(what, items))


def _table(what: str, items: list[dict[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows = [[_value(item, path) for path in _COLUMNS[what].values()] for item in items]
    for number, heading in enumerate(_COLUMNS[what]):
        is_number = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row))  # Text: a name is no markup
    return table


def _value(item: object, path: str) -> object:
    for step in path.split("."):
        item = item.get(step) if isinstance(item, dict) else None
    return item


def _text(value: object) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, dict):
        return one_line(", ".join(f"{name}={part}" for name, part in value.items()))
    return one_line(str(value))
