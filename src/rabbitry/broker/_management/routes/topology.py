"""Exchanges, queues and bindings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus

from starlette.responses import Response

from rabbitry.broker._errors import Refusal
from rabbitry.broker._exchanges import Binding, Exchange
from rabbitry.broker._management import definitions, messages, views
from rabbitry.broker._management.call import CREATED, DONE, Answer, Call, bad, need_keys, not_found, route
from rabbitry.broker._management.changes import COLUMNS
from rabbitry.broker._management.encoding import Json, encode
from rabbitry.broker._management.listing import Listed, answer, streamed
from rabbitry.broker._product import node_name
from rabbitry.broker._queues import Queue
from rabbitry.broker._vhost import VirtualHost


@route("/api/exchanges")
@route("/api/exchanges/{vhost}")
def _exchanges(call: Call) -> object:
    ranges, has_stats = call.ranges, not call.disables_stats

    def view(item: tuple[VirtualHost, Exchange]) -> Json:
        vhost, exchange = item
        return (
            views.exchange_with_stats(exchange, vhost, call.rates, ranges)
            if has_stats
            else views.exchange(exchange, vhost)
        )

    found = [(vhost, item) for vhost in call.vhosts() for item in vhost.exchanges.values()]
    fields: dict[str, Callable[[tuple[VirtualHost, Exchange]], object]] = {
        "name": lambda item: item[1].name,
        "vhost": lambda item: item[0].name,
        "type": lambda item: item[1].type,
    }
    return answer(call, Listed(found, view, fields, has_pages=True))


def _exchange_name(call: Call) -> str:
    name = call.path("name")
    return "" if name == "amq.default" else name


@route("/api/exchanges/{vhost}/{name}", "GET", "PUT", "DELETE")
def _exchange(call: Call) -> object:
    vhost, name = call.vhost(), _exchange_name(call)
    if call.method == "PUT":
        body = call.body()
        call.need("configure", vhost.name, name)
        is_new = name not in vhost.exchanges
        vhost.declare_exchange(
            name,
            str(body.get("type", "direct")),
            durable=_flag(body, "durable", default=False),
            auto_delete=_flag(body, "auto_delete", default=False),
            internal=_flag(body, "internal", default=False),
            arguments=definitions.table(body.get("arguments")),
        )
        return CREATED if is_new else DONE
    if name not in vhost.exchanges:
        raise not_found()
    if call.method == "DELETE":
        call.need("configure", vhost.name, name)
        return call.carry_out(
            vhost.deleting_exchange(name, if_unused=call.request.query_params.get("if-unused") == "true")
        )
    shown = views.exchange_with_stats(vhost.exchanges[name], vhost, call.rates, call.ranges)
    return {**shown, "incoming": [], "outgoing": []}


@route("/api/exchanges/{vhost}/{name}/bindings/{end}")
def _exchange_bindings(call: Call) -> object:
    vhost, name, end = call.vhost(), _exchange_name(call), call.path("end")
    if name not in vhost.exchanges or end not in ("source", "destination"):
        raise not_found()
    exchange = vhost.exchanges[name]
    if not name and end == "source":
        return _answer_bindings(call, [(vhost, queue) for queue in vhost.queues.values()])
    found = exchange.bindings.values() if end == "source" else vhost.bindings_to(exchange)
    return _answer_bindings(call, [(vhost, item) for item in found])


@route("/api/exchanges/{vhost}/{name}/publish", "POST")
async def _publish(call: Call) -> object:
    vhost, name = call.vhost(), _exchange_name(call)
    call.need("write", vhost.name, name)
    try:
        return {"routed": await messages.publish(vhost, name, call.body(), call.user.name, call.pace)}
    except Refusal as error:
        raise bad(f"{error.reply_code.value} {error.reply_text}") from error


def _flag(body: Json, name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise bad(["not_boolean", value])
    return value


# -- queues ------------------------------------------------------------------------------------------------


@route("/api/queues")
@route("/api/queues/{vhost}")
def _queues(call: Call) -> object:
    ranges = call.ranges
    has_totals = call.request.query_params.get("enable_queue_totals") == "true"

    def view(item: Queue) -> Json:
        if call.disables_stats:
            return views.queue_as_declared(item, has_totals=has_totals)
        return views.queue(item, call.rates, ranges)

    found = [item for vhost in call.vhosts() for item in vhost.queues.values()]
    return answer(call, Listed(found, view, _QUEUE_FIELDS, has_pages=True))


@route("/api/rabbitry/changes/queues")
async def _changed_queues(call: Call) -> object:
    """Answer with the queues that changed since a version, as soon as there are some; RabbitMQ has no such path."""
    query = call.request.query_params
    version, wait = _whole(query.get("since", "0"), "since"), _whole(query.get("wait", "0"), "wait")
    news = await call.changes.since(version, wait)
    seen = {vhost.name for vhost in call.vhosts()}
    head = {"version": news.version, "whole": news.is_whole, "columns": COLUMNS}
    gone = [key for key in news.gone if key[0] in seen]
    rows = [row for row in news.rows if row[0] in seen]
    chunks: list[bytes] = []
    async with call.pace as pace:
        for first in range(0, len(rows), _ROWS):
            if first:
                chunks.append(b",")
            chunks.append(encode(rows[first : first + _ROWS])[1:-1])
            await pace.rest()
    return streamed([encode(head)[:-1], b',"gone":', encode(gone), b',"rows":[', *chunks, b"]}"])


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS):
        raise bad(f"{name} is a whole number")
    return int(text)


_MOST_DIGITS: Final = 20
_ROWS: Final = 100
"""Rows that are encoded together, which takes 0.1 ms: each by itself takes three times as long."""
_QUEUE_FIELDS: Final[dict[str, Callable[[Queue], object]]] = {
    "name": lambda item: item.name,
    "vhost": lambda item: item.vhost.name,
    "durable": lambda item: item.durable,
    "auto_delete": lambda item: item.auto_delete,
    "exclusive": lambda item: item.owner is not None,
    "consumers": lambda item: len(item.turns),
    "messages": lambda item: item.ready + item.unsettled,
    "messages_ready": lambda item: item.ready,
    "messages_unacknowledged": lambda item: item.unsettled,
    "message_bytes": lambda item: item.ready_bytes,
    "policy": lambda item: item.policy.name if item.policy is not None else None,
}


@route("/api/queues/{vhost}/{name}", "GET", "PUT", "DELETE")
def _queue(call: Call) -> object:
    if call.method == "PUT":
        vhost, name, body = call.vhost(), call.path("name"), call.body()
        call.need("configure", vhost.name, name)
        if body.get("node") not in (None, node_name()):
            raise bad(f"Node {body['node']} could not be contacted")
        vhost.check_queue_limit(name)
        is_new = name not in vhost.queues
        vhost.declare_queue(
            name,
            None,
            durable=_flag(body, "durable", default=False),
            exclusive=False,
            auto_delete=_flag(body, "auto_delete", default=False),
            arguments=definitions.table(body.get("arguments")),
        )
        return CREATED if is_new else DONE
    queue = call.queue()
    if call.method == "DELETE":
        call.need("configure", queue.vhost.name, queue.name)
        query = call.request.query_params
        where = f"queue '{queue.name}' in vhost '{queue.vhost.name}'"
        if query.get("if-empty") == "true" and len(queue):
            raise bad(f"{where} not empty")
        if query.get("if-unused") == "true" and len(queue.turns):
            raise bad(f"{where} in use")
        if "true" in (query.get("if-empty"), query.get("if-unused")):  # the check holds only in this iteration
            call.vhost().delete_queue(queue)
            return DONE
        return call.carry_out(call.vhost().deleting_queue(queue))
    if call.disables_stats:
        return views.queue_as_declared(queue, has_totals=False)
    return views.queue_details(queue, call.rates, call.ranges)


@route("/api/queues/{vhost}/{name}/bindings")
def _queue_bindings(call: Call) -> object:
    vhost, queue = call.vhost(), call.queue()
    found: list[Binding | Queue] = [queue, *vhost.bindings_to(queue)]
    return _answer_bindings(call, [(vhost, item) for item in found])


@route("/api/queues/{vhost}/{name}/contents", "DELETE")
async def _contents(call: Call) -> object:
    vhost, queue = call.vhost(), call.queue()
    call.need("read", vhost.name, queue.name)
    purged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def then() -> None:
        if not purged.done():  # the client may be gone
            purged.set_result(None)

    journal = vhost.journal
    queue.check_purge()
    _, steps = queue.purge()
    if not call.broker.shares.work(steps, then, journal.may_grow):
        await purged
    if queue.id:
        await journal.committed_now()
    return DONE


@route("/api/queues/{vhost}/{name}/get", "POST")
async def _get(call: Call) -> object:
    vhost, name, body = call.vhost(), call.path("name"), call.body()
    need_keys(body, "ackmode", "count", "encoding")
    call.need("read", vhost.name, name)
    if name not in vhost.queues:
        raise Answer(404, "not_found", f"NOT_FOUND - no queue '{name}' in vhost '{vhost.name}'")
    found = await messages.get(vhost, vhost.queues[name], body, call.pace, call.broker.shares)
    return streamed([b"[", b",".join(found), b"]"])


@route("/api/rabbitry/queues/{vhost}/{name}/messages")
def _messages(call: Call) -> object:
    queue = call.queue()
    call.need("read", queue.vhost.name, queue.name)
    return messages.peek(call.vhost(), queue, call.pace, call.request.query_params)


@route("/api/queues/{vhost}/{name}/actions", "POST")
def _actions(call: Call) -> object:
    call.queue()
    body = call.body()
    need_keys(body, "action")
    if body["action"] not in ("sync", "cancel_sync"):
        raise bad(["unknown", body["action"]])
    return DONE


# -- bindings ----------------------------------------------------------------------------------------------


@route("/api/bindings")
@route("/api/bindings/{vhost}")
def _bindings(call: Call) -> object:
    found: list[tuple[VirtualHost, Binding | Queue]] = []
    for vhost in call.vhosts():
        found += [(vhost, queue) for queue in vhost.queues.values()]
        found += [(vhost, item) for item in vhost.all_bindings()]
    return _answer_bindings(call, found)


def _answer_bindings(call: Call, found: Sequence[tuple[VirtualHost, Binding | Queue]]) -> Awaitable[Response]:
    """List bindings; a queue stands for its binding to the default exchange."""

    def view(item: tuple[VirtualHost, Binding | Queue]) -> Json:
        vhost, one = item
        return views.default_binding(one) if isinstance(one, Queue) else views.binding(one, vhost)

    order = ("vhost", "source", "destination_type", "destination", "routing_key")
    return answer(call, Listed(found, view, _BINDING_FIELDS, order))


_BINDING_FIELDS: Final[dict[str, Callable[[tuple[VirtualHost, Binding | Queue]], object]]] = {
    "vhost": lambda item: item[0].name,
    "source": lambda item: "" if isinstance(item[1], Queue) else item[1].source.name,
    "destination_type": lambda item: views.kind_of(item[1]),
    "destination": lambda item: item[1].name if isinstance(item[1], Queue) else item[1].destination.name,
    "routing_key": lambda item: item[1].name if isinstance(item[1], Queue) else item[1].routing_key,
}


def _ends(call: Call) -> tuple[VirtualHost, str, Any]:
    vhost, source, kind = call.vhost(), call.path("source"), call.path("kind")
    source = "" if source == "amq.default" else source
    known: Any = vhost.queues if kind == "q" else vhost.exchanges if kind == "e" else {}
    destination = known.get(call.path("destination"))
    for what, name, there in (("exchange", source, source in vhost.exchanges), ("queue", "", destination is not None)):
        if not there and call.method == "POST":
            reason = f"no {what} '{name or call.path('destination')}' in vhost '{vhost.name}'"
            raise Answer(404, "not_found", reason)
        if not there:
            raise not_found()
    return vhost, source, destination


@route("/api/bindings/{vhost}/e/{source}/{kind}/{destination}", "GET", "POST")
def _bindings_between(call: Call) -> object:
    vhost, source, destination = _ends(call)
    if call.method == "GET":
        found: list[tuple[VirtualHost, Binding | Queue]] = []
        if not source and call.path("kind") == "q":
            found.append((vhost, destination))
        found += [(vhost, item) for item in vhost.bindings_to(destination) if item.source.name == source]
        return _answer_bindings(call, found)
    body = call.body()
    call.need("write", vhost.name, destination.name)
    call.need("read", vhost.name, source)
    key, arguments = str(body.get("routing_key", "")), definitions.table(body.get("arguments"))
    vhost.bind(source, destination, key, arguments)
    name = quote(destination.name, safe="")
    location = quote(views.properties_key(key, arguments), safe="")
    return Response(status_code=201, headers={"location": f"{name}/{location}"})


@route("/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{properties}", "GET", "DELETE")
def _binding(call: Call) -> object:
    vhost, source, destination = _ends(call)
    properties = unquote(str(call.request.path_params["properties"]))
    found = [item for item in vhost.bindings_to(destination) if item.source.name == source]
    # RabbitMQ accepts the key as it shows it, and also without the extra encoding for a path; a "~" ends the routing
    # key there.
    for decoded in (str,) if "~" in properties else (str, unquote_plus):
        for item in found:
            if decoded(views.properties_key(item.routing_key, item.arguments)) != decoded(properties):
                continue
            if call.method == "GET":
                return views.binding(item, vhost)
            call.need("write", vhost.name, destination.name)
            call.need("read", vhost.name, source)
            vhost.unbind(source, destination, item.routing_key, item.arguments)
            return DONE
    raise not_found()
