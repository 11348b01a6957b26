"""Connections, channels and consumers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from rabbitry.broker._channel import Channel, Consumer
from rabbitry.broker._connection import ClientConnection
from rabbitry.broker._management import views
from rabbitry.broker._management.call import ADMINISTRATOR, DONE, MONITORING, Call, bad, not_found, route
from rabbitry.broker._management.listing import Listed, answer


def _connections(call: Call) -> list[ClientConnection]:
    everything = MONITORING in call.user.tags or ADMINISTRATOR in call.user.tags
    found = [item for item in call.broker.connections if item.user and (everything or item.user == call.user.name)]
    if "vhost" in call.request.path_params:
        vhost = call.vhost()
        found = [item for item in found if item.vhost is vhost]
    return found


@route("/api/connections")
@route("/api/vhosts/{vhost}/connections")
def _list_connections(call: Call) -> object:
    return _answer_connections(call, _connections(call))


@route("/api/connections/username/{name}", "GET", "DELETE")
def _connections_of_user(call: Call) -> object:
    found = [item for item in _connections(call) if item.user == call.path("name")]
    if call.method == "DELETE":
        return _close_all(call, found)
    return _answer_connections(call, found)


def _answer_connections(call: Call, found: list[ClientConnection]) -> Awaitable[Response]:
    ranges = call.ranges
    fields: dict[str, Callable[[ClientConnection], object]] = {
        "name": lambda item: item.name,
        "vhost": lambda item: item.vhost.name,
        "user": lambda item: item.user,
    }
    return answer(call, Listed(found, lambda item: views.connection(item, call.rates, ranges), fields, has_pages=True))


async def _close_all(call: Call, found: list[ClientConnection]) -> object:
    async with call.pace as pace:
        for item in found:
            _close(call, item)
            await pace.rest()
    return DONE


def _close(call: Call, item: ClientConnection) -> None:
    reason = call.request.headers.get("x-reason", "Closed via management plugin")
    item.hang_up(320, f"CONNECTION_FORCED - {reason}")


@route("/api/connections/{name}", "GET", "DELETE")
def _connection(call: Call) -> object:
    item = next((item for item in _connections(call) if item.name == call.path("name")), None)
    if item is None:
        raise not_found()
    if call.method == "DELETE":
        _close(call, item)
        return DONE
    return views.connection(item, call.rates, call.ranges)


@route("/api/connections/{name}/channels")
def _connection_channels(call: Call) -> object:
    item = next((item for item in _connections(call) if item.name == call.path("name")), None)
    if item is None:
        raise not_found()
    return _answer_channels(call, list(item.channels.values()))


@route("/api/channels")
@route("/api/vhosts/{vhost}/channels")
def _list_channels(call: Call) -> object:
    return _answer_channels(call, [item for one in _connections(call) for item in one.channels.values()])


def _answer_channels(call: Call, found: list[Channel]) -> Awaitable[Response]:
    if call.disables_stats:
        raise bad("Stats in management UI are disabled on this node")
    ranges = call.ranges
    fields: dict[str, Callable[[Channel], object]] = {
        "name": views.channel_name,
        "vhost": lambda item: item.vhost.name,
        "user": lambda item: item.connection.user,
    }
    return answer(call, Listed(found, lambda item: views.channel(item, call.rates, ranges), fields, has_pages=True))


@route("/api/channels/{name}")
def _channel(call: Call) -> object:
    for connection in _connections(call):
        for channel in connection.channels.values():
            if views.channel_name(channel) == call.path("name"):
                shown = views.channel(channel, call.rates, call.ranges)
                consumers = [views.consumer(item) for item in channel.consumers.values()]
                return {
                    **shown,
                    "consumer_details": consumers,
                    "deliveries": [],
                    "publishes": views.publishes(shown, connection),
                }
    raise not_found()


@route("/api/consumers")
@route("/api/consumers/{vhost}")
def _consumers(call: Call) -> object:
    vhosts = set(call.vhosts())
    found = [
        item
        for connection in call.broker.connections
        if connection.vhost in vhosts
        for channel in connection.channels.values()
        for item in channel.consumers.values()
    ]
    fields: dict[str, Callable[[Consumer], object]] = {
        "queue": lambda item: {"name": item.queue.name, "vhost": item.queue.vhost.name},
        "consumer_tag": lambda item: item.tag,
    }
    order = ("queue.vhost", "queue.name", "consumer_tag")
    return answer(call, Listed(found, views.consumer, fields, order))
