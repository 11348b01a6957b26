"""The routes of the management API: who may ask, what they get, and RabbitMQ's words for what went wrong."""

import asyncio
import base64
import binascii
import inspect
import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from warren.amqp.protocol.states import ConnectionState
from warren.broker.access import Permission, User, hash_password
from warren.broker.errors import Refusal
from warren.broker.login import may_come_from
from warren.broker.management import definitions, messages, views
from warren.broker.management.definitions import BadDefinition
from warren.broker.management.rates import Rates
from warren.broker.management.views import Json
from warren.exceptions import ProtocolViolation, UsageError

if TYPE_CHECKING:
    from warren.broker.broker import Broker
    from warren.broker.queues.queue import Queue
    from warren.broker.vhost import VirtualHost

_MOST_BODY: Final = 16 << 20
_MOST_PAGE: Final = 500
_HANG_UP: Final = 0.05
_ADMINISTRATOR: Final = "administrator"
_MONITORING: Final = "monitoring"
_TAGS: Final = ("management", "policymaker", _MONITORING, _ADMINISTRATOR)
_ROOT: Final = """<!doctype html><html lang="en"><title>Warren's broker</title>
<h1>Warren's embedded broker</h1>
<p>This is the management API of an AMQP broker with the behaviour of RabbitMQ 3.10.8. It is for programs:
<a href="api/overview">api/overview</a>, <a href="api/queues">api/queues</a> and the others, as in RabbitMQ.</p>
<p>The dashboard for people is another program: <code>warren up</code> or <code>warren web</code>, by default on
<a href="http://127.0.0.1:8003/">port 8003</a>. On a terminal: <code>warren queues --watch</code>.</p></html>"""


class _Answer(Exception):
    """An answer that ends a request early."""

    def __init__(self, status: int, error: str = "", reason: object = "") -> None:
        super().__init__(f"{status} {error} {reason}")
        self.status = status
        self.body: Json | None = {"error": error, "reason": reason} if error else None


def _not_found() -> _Answer:
    return _Answer(404, "Object Not Found", "Not Found")


def _bad(reason: str) -> _Answer:
    return _Answer(400, "bad_request", reason)


class _Call:
    """A request with whoever asks, and what its path names."""

    def __init__(self, broker: "Broker", rates: Rates, request: Request, user: User, body: bytes) -> None:
        self.broker = broker
        self.rates = rates
        self.request = request
        self.user = user
        self.method = request.method
        self._body = body

    def path(self, name: str) -> str:
        """Give a part of the path."""
        return unquote(str(self.request.path_params[name]))

    def body(self) -> Json:
        """Give the JSON object that was sent."""
        if not self._body:
            return {}
        try:
            value = json.loads(self._body)
        except ValueError as error:
            raise _bad("not_json") from error
        if not isinstance(value, dict):
            raise _bad(f"invalid payload: the request body JSON-decoded to {type(value).__name__}, not to an object")
        return value

    def vhost(self, kind: str = "") -> "VirtualHost":
        """Give the virtual host of the path."""
        vhost = self.broker.vhosts.get(self.path("vhost"))
        if vhost is None:
            raise _Answer(404, "not_found", "vhost_not_found") if self.method == "PUT" else _not_found()
        if not self.sees(vhost.name):
            raise _Answer(401, "not_authorised", "User not authorised to access virtual host")
        return vhost

    def queue(self) -> "Queue":
        """Give the queue of the path."""
        queue = self.vhost().queues.get(self.path("name"))
        if queue is None:
            raise _not_found()
        return queue

    def sees(self, vhost: str) -> bool:
        """Whether whoever asks may see a virtual host."""
        return _ADMINISTRATOR in self.user.tags or self.broker.access.may_enter(vhost, self.user.name)

    def need(self, kind: Any, vhost: str, name: str) -> None:
        """See that whoever asks may do something to a name."""
        if not self.broker.access.may(kind, vhost, self.user.name, name or "amq.default"):
            text = f"ACCESS_REFUSED - access to '{name}' in vhost '{vhost}' refused for user '{self.user.name}'"
            raise _bad(text)

    def administrator(self) -> None:
        """See that whoever asks is an administrator."""
        if _ADMINISTRATOR not in self.user.tags:
            raise _Answer(401, "not_authorised", "Not administrator user")

    def policymaker(self) -> None:
        """See that whoever asks may make policies."""
        if not {"policymaker", _ADMINISTRATOR} & set(self.user.tags):
            raise _Answer(401, "not_authorised", "Not policymaker user")

    def vhosts(self) -> list["VirtualHost"]:
        """Give the virtual hosts that whoever asks may see, or the one of the path."""
        if "vhost" in self.request.path_params:
            return [self.vhost()]
        return [vhost for vhost in self.broker.vhosts.values() if self.sees(vhost.name)]

    def listed(self, items: list[Json]) -> object:
        """Sort, filter and cut a list as the query asks: sort, columns, page, page_size, name."""
        query = self.request.query_params
        if (key := query.get("sort")) is not None:
            items.sort(key=lambda item: str(item.get(key, "")), reverse=query.get("sort_reverse") == "true")
        else:
            items.sort(key=lambda item: tuple(str(item.get(key, "")) for key in ("vhost", "name", "user")))
        total = len(items)
        if (name := query.get("name")) and "page" in query:
            items = [item for item in items if _matches(name, str(item.get("name", "")), query.get("use_regex"))]
        filtered = len(items)
        page: Json | None = None
        if "page" in query:
            number, size = _number(query["page"], "page"), _number(query.get("page_size", "100"), "page_size")
            if not 1 <= size <= _MOST_PAGE:
                raise _bad(f"page_size must be between 1 and {_MOST_PAGE}")
            pages = max(-(-filtered // size), 1)
            if not 1 <= number <= pages:
                raise _bad(f"page out of range, must be between 1 and {pages}")
            items = items[(number - 1) * size : number * size]
            page = {
                "filtered_count": filtered,
                "item_count": len(items),
                "page": number,
                "page_count": pages,
                "page_size": size,
                "total_count": total,
            }
        if (columns := query.get("columns")) is not None:
            items = [_columns(item, columns.split(",")) for item in items]
        return items if page is None else {**page, "items": items}


def _matches(pattern: str, name: str, regex: str | None) -> bool:
    if regex != "true":
        return pattern in name
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise _bad(f"name is no regular expression: {error}") from error


def _columns(item: Json, columns: list[str]) -> Json:
    shown: Json = {}
    for column in columns:
        value: object = item
        for part in column.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            target = shown
            *parents, last = column.split(".")
            for part in parents:
                inner = target.setdefault(part, {})
                assert isinstance(inner, dict)  # noqa: S101 # made just now
                target = inner
            target[last] = value
    return shown


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        raise _bad(f"{name} must be a positive integer")
    return int(text)


_Handler = Callable[[_Call], object]
_ROUTES: list[tuple[str, tuple[str, ...], _Handler]] = []
_CREATED: Final = object()
_DONE: Final = object()


def _route(path: str, *methods: str) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _ROUTES.append((path, methods or ("GET",), handler))
        return handler

    return register


# -- the whole ---------------------------------------------------------------------------------------------


@_route("/api/overview")
def _overview(call: _Call) -> object:
    return views.overview(call.broker, call.rates, call.user)


@_route("/api/cluster-name")
def _cluster_name(call: _Call) -> object:
    return {"name": views.node_name()}


@_route("/api/whoami")
def _whoami(call: _Call) -> object:
    return {"name": call.user.name, "tags": list(call.user.tags)}


@_route("/api/extensions")
@_route("/api/operator-policies")
@_route("/api/parameters")
@_route("/api/topic-permissions")
@_route("/api/vhost-limits")
@_route("/api/feature-flags")
def _nothing(call: _Call) -> object:
    return []


@_route("/api/global-parameters")
def _global_parameters(call: _Call) -> object:
    return [{"name": "cluster_name", "value": views.node_name()}]


@_route("/api/nodes")
def _nodes(call: _Call) -> object:
    return call.listed([views.node(call.broker)])


@_route("/api/nodes/{name}")
def _node(call: _Call) -> object:
    if call.path("name") != views.node_name():
        raise _not_found()
    return views.node(call.broker)


@_route("/api/health/checks/alarms")
@_route("/api/health/checks/local-alarms")
def _alarms(call: _Call) -> object:
    if call.broker.alarms.on:
        raise _Answer(503, "failed", "There are alarms in effect in the cluster")
    return {"status": "ok"}


@_route("/api/health/checks/virtual-hosts")
@_route("/api/health/checks/node-is-mirror-sync-critical")
@_route("/api/healthchecks/node")
@_route("/api/healthchecks/node/{name}")
def _fine(call: _Call) -> object:
    if call.request.path_params.get("name", views.node_name()) != views.node_name():
        raise _not_found()
    return {"status": "ok"}


@_route("/api/health/checks/node-is-quorum-critical")
def _quorum(call: _Call) -> object:
    return {"status": "ok", "reason": "single node cluster"}


@_route("/api/health/checks/port-listener/{port}")
def _port_listener(call: _Call) -> object:
    port = _number(call.path("port"), "port")
    ports = [item["port"] for item in views.listeners(call.broker)]
    if port not in ports:
        body: Json = {"status": "failed", "reason": "No active listener", "missing": port, "ports": ports}
        return JSONResponse(body, 503)
    return {"status": "ok", "port": port}


@_route("/api/health/checks/protocol-listener/{protocol}")
def _protocol_listener(call: _Call) -> object:
    protocol = call.path("protocol")
    protocols = [item["protocol"] for item in views.listeners(call.broker)]
    if protocol.removesuffix("091").removesuffix("0-9-1") not in protocols:
        body: Json = {
            "status": "failed",
            "reason": "No active listener",
            "missing": protocol,
            "protocols": protocols,
        }
        return JSONResponse(body, 503)
    return {"status": "ok", "protocol": protocol}


@_route("/api/aliveness-test/{vhost}")
def _aliveness(call: _Call) -> object:
    messages.aliveness(call.vhost())
    return {"status": "ok"}


@_route("/api/definitions", "GET", "POST")
def _definitions(call: _Call) -> object:
    call.administrator()
    if call.method == "GET":
        return definitions.export(call.broker)
    definitions.load(call.broker, call.body())
    return _DONE


@_route("/api/definitions/{vhost}", "GET", "POST")
def _vhost_definitions(call: _Call) -> object:
    call.administrator()
    if call.method == "GET":
        return definitions.export(call.broker, call.vhost())
    definitions.load(call.broker, call.body(), call.vhost())
    return _DONE


# -- connections, channels, consumers ----------------------------------------------------------------------


def _connections(call: _Call) -> list[Any]:
    everything = _MONITORING in call.user.tags or _ADMINISTRATOR in call.user.tags
    found = [item for item in call.broker.connections if item.user and (everything or item.user == call.user.name)]
    if "vhost" in call.request.path_params:
        vhost = call.vhost()
        found = [item for item in found if item.vhost is vhost]
    return found


@_route("/api/connections")
@_route("/api/vhosts/{vhost}/connections")
def _list_connections(call: _Call) -> object:
    return call.listed([views.connection(item, call.rates) for item in _connections(call)])


@_route("/api/connections/{name}", "GET", "DELETE")
def _connection(call: _Call) -> object:
    item = next((item for item in _connections(call) if item.name == call.path("name")), None)
    if item is None:
        raise _not_found()
    if call.method == "DELETE":
        reason = call.request.headers.get("x-reason", "Closed via management plugin")
        item.hang_up(320, f"CONNECTION_FORCED - {reason}")
        return _DONE
    return views.connection(item, call.rates)


@_route("/api/connections/{name}/channels")
def _connection_channels(call: _Call) -> object:
    item = next((item for item in _connections(call) if item.name == call.path("name")), None)
    if item is None:
        raise _not_found()
    return call.listed([views.channel(channel) for channel in item.channels.values()])


@_route("/api/channels")
@_route("/api/vhosts/{vhost}/channels")
def _list_channels(call: _Call) -> object:
    return call.listed([views.channel(item) for one in _connections(call) for item in one.channels.values()])


@_route("/api/channels/{name}")
def _channel(call: _Call) -> object:
    for connection in _connections(call):
        for channel in connection.channels.values():
            shown = views.channel(channel)
            if shown["name"] == call.path("name"):
                shown["consumer_details"] = [views.consumer(item) for item in channel.consumers.values()]
                return shown
    raise _not_found()


@_route("/api/consumers")
@_route("/api/consumers/{vhost}")
def _consumers(call: _Call) -> object:
    found = [views.consumer(item) for vhost in call.vhosts() for queue in vhost.queues.values() for item in queue.turns]
    return call.listed(found)


# -- exchanges ---------------------------------------------------------------------------------------------


@_route("/api/exchanges")
@_route("/api/exchanges/{vhost}")
def _exchanges(call: _Call) -> object:
    found = [views.exchange(item, vhost) for vhost in call.vhosts() for item in vhost.exchanges.values()]
    return call.listed(found)


def _exchange_name(call: _Call) -> str:
    name = call.path("name")
    return "" if name == "amq.default" else name


@_route("/api/exchanges/{vhost}/{name}", "GET", "PUT", "DELETE")
def _exchange(call: _Call) -> object:
    vhost, name = call.vhost(), _exchange_name(call)
    if call.method == "PUT":
        body = call.body()
        call.need("configure", vhost.name, name)
        is_new = name not in vhost.exchanges
        vhost.declare_exchange(
            name,
            str(body.get("type", "direct")),
            durable=_flag(body, "durable", False),
            auto_delete=_flag(body, "auto_delete", False),
            internal=_flag(body, "internal", False),
            arguments=definitions.table(body.get("arguments")),
        )
        return _CREATED if is_new else _DONE
    if name not in vhost.exchanges:
        raise _not_found()
    if call.method == "DELETE":
        call.need("configure", vhost.name, name)
        vhost.delete_exchange(name, call.request.query_params.get("if-unused") == "true")
        return _DONE
    return {**views.exchange(vhost.exchanges[name], vhost), "incoming": [], "outgoing": []}


@_route("/api/exchanges/{vhost}/{name}/bindings/{end}")
def _exchange_bindings(call: _Call) -> object:
    vhost, name, end = call.vhost(), _exchange_name(call), call.path("end")
    if name not in vhost.exchanges or end not in ("source", "destination"):
        raise _not_found()
    found = [views.binding(item, vhost) for item in vhost.all_bindings()]
    if not name and end == "source":
        found = [views.default_binding(queue) for queue in vhost.queues.values()]
    kind = "" if end == "source" else "exchange"
    return call.listed([item for item in found if item[end] == name and kind in ("", item["destination_type"])])


@_route("/api/exchanges/{vhost}/{name}/publish", "POST")
def _publish(call: _Call) -> object:
    vhost, name = call.vhost(), _exchange_name(call)
    call.need("write", vhost.name, name)
    if name not in vhost.exchanges:
        raise _not_found()
    return {"routed": messages.publish(vhost, name, call.body(), call.user.name)}


def _flag(body: Json, name: str, default: bool) -> bool:
    value = body.get(name, default)
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise _bad(f"{name} is true or false, not {value!r}")
    return value


# -- queues ------------------------------------------------------------------------------------------------


@_route("/api/queues")
@_route("/api/queues/{vhost}")
def _queues(call: _Call) -> object:
    found = [views.queue(item, call.rates) for vhost in call.vhosts() for item in vhost.queues.values()]
    return call.listed(found)


@_route("/api/queues/{vhost}/{name}", "GET", "PUT", "DELETE")
def _queue(call: _Call) -> object:
    if call.method == "PUT":
        vhost, name, body = call.vhost(), call.path("name"), call.body()
        call.need("configure", vhost.name, name)
        is_new = name not in vhost.queues
        vhost.declare_queue(
            name,
            None,
            durable=_flag(body, "durable", False),
            exclusive=False,
            auto_delete=_flag(body, "auto_delete", False),
            arguments=definitions.table(body.get("arguments")),
        )
        return _CREATED if is_new else _DONE
    queue = call.queue()
    if call.method == "DELETE":
        call.need("configure", queue.vhost.name, queue.name)
        query = call.request.query_params
        where = f"queue '{queue.name}' in vhost '{queue.vhost.name}'"
        if query.get("if-empty") == "true" and len(queue):
            raise _bad(f"{where} not empty")
        if query.get("if-unused") == "true" and len(queue.turns):
            raise _bad(f"{where} in use")
        queue.vhost.delete_queue(queue)
        return _DONE
    return views.queue_details(queue, call.rates)


@_route("/api/queues/{vhost}/{name}/bindings")
def _queue_bindings(call: _Call) -> object:
    queue = call.queue()
    found = [views.binding(item, queue.vhost) for item in queue.vhost.bindings_to(queue)]
    return call.listed([views.default_binding(queue), *found])


@_route("/api/queues/{vhost}/{name}/contents", "DELETE")
def _contents(call: _Call) -> object:
    queue = call.queue()
    call.need("read", queue.vhost.name, queue.name)
    queue.purge()
    return _DONE


@_route("/api/queues/{vhost}/{name}/get", "POST")
def _get(call: _Call) -> object:
    queue = call.queue()
    call.need("read", queue.vhost.name, queue.name)
    return messages.get(queue, call.body())


@_route("/api/queues/{vhost}/{name}/actions", "POST")
def _actions(call: _Call) -> object:
    call.queue()
    if call.body().get("action") not in ("sync", "cancel_sync"):
        raise _bad("unknown action")
    return _DONE


# -- bindings ----------------------------------------------------------------------------------------------


@_route("/api/bindings")
@_route("/api/bindings/{vhost}")
def _bindings(call: _Call) -> object:
    found: list[Json] = []
    for vhost in call.vhosts():
        found += [views.default_binding(queue) for queue in vhost.queues.values()]
        found += [views.binding(item, vhost) for item in vhost.all_bindings()]
    return call.listed(found)


def _ends(call: _Call) -> tuple["VirtualHost", str, Any]:
    vhost, source, kind = call.vhost(), call.path("source"), call.path("kind")
    source = "" if source == "amq.default" else source
    known: Any = vhost.queues if kind == "q" else vhost.exchanges if kind == "e" else {}
    destination = known.get(call.path("destination"))
    for what, name, there in (("exchange", source, source in vhost.exchanges), ("queue", "", destination is not None)):
        if not there and call.method == "POST":
            reason = f"no {what} '{name or call.path('destination')}' in vhost '{vhost.name}'"
            raise _Answer(404, "not_found", reason)
        if not there:
            raise _not_found()
    return vhost, source, destination


@_route("/api/bindings/{vhost}/e/{source}/{kind}/{destination}", "GET", "POST")
def _bindings_between(call: _Call) -> object:
    vhost, source, destination = _ends(call)
    if call.method == "GET":
        found = [views.binding(item, vhost) for item in vhost.bindings_to(destination) if item.source.name == source]
        if not source and call.path("kind") == "q":
            found.append(views.default_binding(destination))
        return call.listed(found)
    body = call.body()
    call.need("write", vhost.name, destination.name)
    call.need("read", vhost.name, source)
    key, arguments = str(body.get("routing_key", "")), definitions.table(body.get("arguments"))
    vhost.bind(source, destination, key, arguments)
    location = views.properties_key(key, arguments)
    return Response(status_code=201, headers={"location": f"{call.path('destination')}/{location}"})


@_route("/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{properties}", "GET", "DELETE")
def _binding(call: _Call) -> object:
    vhost, source, destination = _ends(call)
    properties = str(call.request.path_params["properties"])
    for item in vhost.bindings_to(destination):
        shown = views.binding(item, vhost)
        if item.source.name == source and properties in (
            shown["properties_key"],
            unquote(str(shown["properties_key"])),
        ):
            if call.method == "GET":
                return shown
            call.need("write", vhost.name, destination.name)
            call.need("read", vhost.name, source)
            vhost.unbind(source, destination, item.routing_key, item.arguments)
            return _DONE
    raise _not_found()


# -- virtual hosts, users, permissions ---------------------------------------------------------------------


@_route("/api/vhosts")
def _vhosts(call: _Call) -> object:
    return call.listed([views.vhost(item, call.rates) for item in call.vhosts()])


@_route("/api/vhosts/{vhost}", "GET", "PUT", "DELETE")
def _vhost(call: _Call) -> object:
    if call.method == "PUT":
        call.administrator()
        call.body()
        is_new = call.path("vhost") not in call.broker.vhosts
        call.broker.add_vhost(call.path("vhost"))
        call.broker.access.put_permission(call.path("vhost"), call.user.name, Permission())
        return _CREATED if is_new else _DONE
    if call.method == "DELETE":
        call.administrator()
        call.broker.delete_vhost(call.vhost().name)
        return _DONE
    return views.vhost(call.vhost(), call.rates)


@_route("/api/vhosts/{vhost}/permissions")
def _vhost_permissions(call: _Call) -> object:
    call.administrator()
    name = call.vhost().name
    found = call.broker.access.permissions.items()
    return call.listed([views.permission(vhost, user, item) for (vhost, user), item in found if vhost == name])


@_route("/api/users")
def _users(call: _Call) -> object:
    call.administrator()
    return call.listed([views.user(item) for item in call.broker.access.users.values()])


@_route("/api/users/without-permissions")
def _users_without_permissions(call: _Call) -> object:
    call.administrator()
    access = call.broker.access
    with_any = {user for _, user in access.permissions}
    return call.listed([views.user(item) for item in access.users.values() if item.name not in with_any])


@_route("/api/users/bulk-delete", "POST")
def _delete_users(call: _Call) -> object:
    call.administrator()
    names = call.body().get("users")
    if not isinstance(names, list):
        raise _bad("[{key_missing,users}]")
    for name in names:
        if not isinstance(name, str) or name not in call.broker.access.users:
            raise _Answer(400, "bad_request", ["no_such_user", name])
        call.broker.delete_user(name)
    return _DONE


@_route("/api/users/{name}", "GET", "PUT", "DELETE")
def _user(call: _Call) -> object:
    call.administrator()
    name, access = call.path("name"), call.broker.access
    if call.method == "PUT":
        is_new = name not in access.users
        body = call.body()
        tags = body.get("tags")
        if tags is None:
            raise _bad("[{key_missing,tags}]")
        names = (
            tags.split(",") if isinstance(tags, str) else [str(tag) for tag in tags] if isinstance(tags, list) else []
        )
        password, hashed = body.get("password"), body.get("password_hash", "")
        access.put_user(
            name,
            hash_password(password) if isinstance(password, str) else str(hashed),
            [tag.strip() for tag in names if tag.strip()],
        )
        return _CREATED if is_new else _DONE
    if name not in access.users:
        raise _not_found()
    if call.method == "DELETE":
        call.broker.delete_user(name)
        return _DONE
    return views.user(access.users[name])


@_route("/api/users/{name}/permissions")
def _user_permissions(call: _Call) -> object:
    call.administrator()
    name = call.path("name")
    if name not in call.broker.access.users:
        raise _not_found()
    found = call.broker.access.permissions.items()
    return call.listed([views.permission(vhost, user, item) for (vhost, user), item in found if user == name])


@_route("/api/permissions")
def _permissions(call: _Call) -> object:
    call.administrator()
    found = call.broker.access.permissions.items()
    return call.listed([views.permission(vhost, user, item) for (vhost, user), item in found])


@_route("/api/permissions/{vhost}/{user}", "GET", "PUT", "DELETE")
def _permission(call: _Call) -> object:
    call.administrator()
    access, vhost, user = call.broker.access, call.vhost().name, call.path("user")
    if user not in access.users:
        raise _not_found()
    known = access.permissions.get((vhost, user))
    if call.method == "PUT":
        body = call.body()
        missing = [kind for kind in Permission._fields if not isinstance(body.get(kind), str)]
        if missing:
            raise _bad(f"[{{key_missing,{missing[0]}}}]")
        try:
            access.put_permission(vhost, user, Permission(*(str(body[kind]) for kind in Permission._fields)))
        except re.error as error:
            raise _bad(f"invalid regular expression: {error}") from error
        return _CREATED if known is None else _DONE
    if known is None:
        raise _not_found()
    if call.method == "DELETE":
        access.delete_permission(vhost, user)
        return _DONE
    return views.permission(vhost, user, known)


@_route("/api/policies")
@_route("/api/policies/{vhost}")
def _policies(call: _Call) -> object:
    call.policymaker()
    names = {vhost.name for vhost in call.vhosts()}
    return call.listed([views.policy(policy) for policy in call.broker.policies if policy.vhost in names])


@_route("/api/policies/{vhost}/{name}", "GET", "PUT", "DELETE")
def _policy(call: _Call) -> object:
    call.policymaker()
    vhost, name = call.vhost().name, call.path("name")
    known = call.broker.policies.get(vhost, name)
    if call.method == "PUT":
        call.broker.put_policy(definitions.policy(call.body() | {"vhost": vhost, "name": name}))
        return _CREATED if known is None else _DONE
    if known is None:
        raise _not_found()
    if call.method == "DELETE":
        call.broker.delete_policy(vhost, name)
        return _DONE
    return views.policy(known)


# -- the application ---------------------------------------------------------------------------------------


def make_app(broker: "Broker", rates: Rates) -> Starlette:
    """Make the ASGI application for a broker. It runs on the broker's own loop."""

    async def root(request: Request) -> Response:
        return HTMLResponse(_ROOT)

    routes = [Route("/", root)]
    for path, methods, handler in _ROUTES:
        routes.append(Route(path, _endpoint(broker, rates, handler), methods=list(methods)))

    async def missing(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "Object Not Found", "reason": "Not Found"}, 404)

    app = Starlette(routes=routes, exception_handlers={404: missing})
    return _RawPaths(app)  # type: ignore[return-value] # an ASGI application too


class _RawPaths:
    """Routes by the path as it was sent, so that the %2F of a virtual host stays one segment."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or scope["path"].encode()
            path = raw.split(b"?")[0].decode("latin-1")
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)


def _endpoint(broker: "Broker", rates: Rates, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            user = _authenticate(broker, request)
            body = await _read(request)
            changes = broker.journal.changes
            result = handler(_Call(broker, rates, request, user, body))
            if inspect.isawaitable(result):
                result = await result
            broker.dispatch()
            if broker.journal.changes != changes:
                await broker.journal.committed_now()
            if request.method == "DELETE":
                await _hung_up(broker)
        except _Answer as early:
            if early.status == 401 and early.body is None:
                return Response(status_code=401, headers={"www-authenticate": 'Basic realm="RabbitMQ Management"'})
            return JSONResponse(early.body, early.status)
        except (Refusal, BadDefinition, ProtocolViolation, UsageError) as error:
            text = error.reply_text.partition(" - ")[2] if isinstance(error, Refusal) else str(error)
            return JSONResponse({"error": "bad_request", "reason": text}, 400)
        if isinstance(result, Response):
            return result
        if result is _CREATED or result is _DONE:
            return Response(status_code=201 if result is _CREATED else 204)
        return JSONResponse(result)

    return answer


async def _hung_up(broker: "Broker") -> None:
    """Wait, but not long, for connections that are being closed: whoever deleted what they used finds them gone."""
    closing = [item.closed for item in broker.connections if item.core.state is ConnectionState.CLOSING]
    if closing:
        await asyncio.wait(closing, timeout=_HANG_UP)


def _authenticate(broker: "Broker", request: Request) -> User:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise _Answer(401)
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _Answer(401, "not_authorised", "Login failed") from error
    address = request.client.host if request.client is not None else ""
    if not (broker.access.is_password(name, password) and may_come_from(name, address)):
        raise _Answer(401, "not_authorised", "Login failed")
    user = broker.access.users[name]
    if not set(user.tags) & set(_TAGS):
        raise _Answer(401, "not_authorised", "Not management user")
    return user


async def _read(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            raise _Answer(413, "bad_request", "the request body is too large")
    return body
