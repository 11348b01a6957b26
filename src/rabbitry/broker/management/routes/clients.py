"""Connections, channels and consumers."""

from typing import TYPE_CHECKING, Any

from rabbitry.broker.management import views
from rabbitry.broker.management.call import ADMINISTRATOR, DONE, MONITORING, Call, not_found, route

if TYPE_CHECKING:
    from rabbitry.broker.connection import ClientConnection


def _connections(call: Call) -> list[Any]:
    everything = MONITORING in call.user.tags or ADMINISTRATOR in call.user.tags
    found = [item for item in call.broker.connections if item.user and (everything or item.user == call.user.name)]
    if "vhost" in call.request.path_params:
        vhost = call.vhost()
        found = [item for item in found if item.vhost is vhost]
    return found


@route("/api/connections")
@route("/api/vhosts/{vhost}/connections")
def _list_connections(call: Call) -> object:
    return call.listed([views.connection(item, call.rates) for item in _connections(call)])


@route("/api/connections/username/{name}", "GET", "DELETE")
def _connections_of_user(call: Call) -> object:
    found = [item for item in _connections(call) if item.user == call.path("name")]
    if call.method == "DELETE":
        for item in found:
            _close(call, item)
        return DONE
    return call.listed([views.connection(item, call.rates) for item in found])


def _close(call: Call, item: "ClientConnection") -> None:
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
    return views.connection(item, call.rates)


@route("/api/connections/{name}/channels")
def _connection_channels(call: Call) -> object:
    item = next((item for item in _connections(call) if item.name == call.path("name")), None)
    if item is None:
        raise not_found()
    return call.listed([views.channel(channel) for channel in item.channels.values()])


@route("/api/channels")
@route("/api/vhosts/{vhost}/channels")
def _list_channels(call: Call) -> object:
    return call.listed([views.channel(item) for one in _connections(call) for item in one.channels.values()])


@route("/api/channels/{name}")
def _channel(call: Call) -> object:
    for connection in _connections(call):
        for channel in connection.channels.values():
            shown = views.channel(channel)
            if shown["name"] == call.path("name"):
                shown["consumer_details"] = [views.consumer(item) for item in channel.consumers.values()]
                return shown
    raise not_found()


@route("/api/consumers")
@route("/api/consumers/{vhost}")
def _consumers(call: Call) -> object:
    found = [views.consumer(item) for vhost in call.vhosts() for queue in vhost.queues.values() for item in queue.turns]
    return call.listed(found)
