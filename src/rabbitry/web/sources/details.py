"""The topics `queue`, `exchange`, `connection` and `channel`: one of them, with what belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakValueDictionary

import msgspec
import msgspec.structs

from rabbitry.apps.management import get, get_object, part_of, place_of
from rabbitry.exceptions import UsageError
from rabbitry.web.feed.topics import Params, Part, SeenValue, Subscription, Topic, Value
from rabbitry.web.sources.fields import Object, number, text
from rabbitry.web.sources.lists import LISTINGS

if TYPE_CHECKING:
    import httpx

MOST_LISTED: Final = 500
"""Bindings of a queue, or of an exchange in one direction, or channels of a connection, that are told."""


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of the topics `connection` and `channel`."""

    name: str

    @property
    def path(self) -> str:
        """Its place in a list of the management API. Raises Unanswerable."""
        return place_of(self.name)


class Which(Named, frozen=True, forbid_unknown_fields=True):
    """The parameters of the topics `queue` and `exchange`."""

    vhost: str

    @property
    def path(self) -> str:
        """Its place in a list of the management API. Raises Unanswerable."""
        return place_of(self.vhost, self.name)


Ask: TypeAlias = "Callable[[httpx.AsyncClient, Any], Awaitable[dict[str, Any]]]"


class DetailsTopic(Topic):
    """A value for each thing of one kind that a page subscribes to.

    Args:
        kind: What a thing is called in errors.
        parameters: The type of the parameters.
        ask: Asks a management API for the value. Raises the errors of `fetch`.

    Attributes:
        asked: Set when a page subscribes to a thing that nobody has asked for yet.
    """

    def __init__(self, kind: str, parameters: type[Named], ask: Ask) -> None:
        super().__init__()
        self.asked: asyncio.Event = asyncio.Event()
        self.ask: Ask = ask
        self.members: tuple[str, ...] = tuple(field.name for field in msgspec.structs.fields(parameters))
        self._kind = kind
        self._parameters = parameters
        self._values: WeakValueDictionary[Named, Value] = WeakValueDictionary()

    def which(self) -> list[Named]:
        """Return the things that pages subscribe to."""
        return list(self._values)

    def put(self, which: Named, value: Mapping[str, Any], at: float) -> None:
        """Replace what is known of a thing."""
        if (known := self._values.get(which)) is not None:
            known.put(value, at)
        self.ring()

    def _subscription(self, params: Params) -> Subscription:
        try:
            which = msgspec.convert(params, self._parameters)
        except msgspec.ValidationError as error:
            raise UsageError(f"parameters of the topic {self._kind}: {error}") from error
        value = self._values.get(which)
        if value is None:
            value = self._values[which] = Value()
            self.asked.set()
        return _SeenOne(value)


class _SeenOne(SeenValue):
    """A subscription, which alone keeps its value."""

    def take(self) -> Part | None:
        """Return what changed; nothing before anything is known."""
        return super().take() if self._topic.at is not None else None


def details_topics() -> dict[str, DetailsTopic]:
    """Return the topics by name."""
    return {
        "queue": DetailsTopic("queue", Which, _queue),
        "exchange": DetailsTopic("exchange", Which, _exchange),
        "connection": DetailsTopic("connection", Named, _connection),
        "channel": DetailsTopic("channel", Named, _channel),
    }


async def _queue(client: httpx.AsyncClient, which: Which) -> dict[str, Any]:
    queue = await get_object(client, f"/api/queues/{which.path}")
    bindings = await get(client, f"/api/queues/{which.path}/bindings")
    return {
        **_shown("queues", queue),
        "bindings": [_bound(each) for each in bindings[:MOST_LISTED]],
        "consumers": _consumers(queue),
        "left_out": max(0, len(bindings) - MOST_LISTED),
    }


async def _exchange(client: httpx.AsyncClient, which: Which) -> dict[str, Any]:
    """Ask for an exchange. The bindings of the default one are left out: each queue has one, by its name."""
    path = f"/api/exchanges/{which.path if which.name else place_of(which.vhost, 'amq.default')}"
    exchange = await get_object(client, path)
    outgoing = await get(client, f"{path}/bindings/source") if which.name else []
    incoming = await get(client, f"{path}/bindings/destination") if which.name else []
    return {
        **_shown("exchanges", exchange),
        "outgoing": [_bound(each) for each in outgoing[:MOST_LISTED]],
        "incoming": [_bound(each) for each in incoming[:MOST_LISTED]],
        "left_out": max(0, len(outgoing) - MOST_LISTED) + max(0, len(incoming) - MOST_LISTED),
    }


async def _connection(client: httpx.AsyncClient, which: Named) -> dict[str, Any]:
    connection = await get_object(client, f"/api/connections/{which.path}")
    channels = await get(client, f"/api/connections/{which.path}/channels")
    return {
        **_row("connections", connection),
        "client": part_of(connection, "client_properties"),
        "heartbeat": number(connection.get("timeout")),
        "channels": [_named("channels", each) for each in channels[:MOST_LISTED]],
        "left_out": max(0, len(channels) - MOST_LISTED),
    }


async def _channel(client: httpx.AsyncClient, which: Named) -> dict[str, Any]:
    channel = await get_object(client, f"/api/channels/{which.path}")
    return {
        **_row("channels", channel),
        "connection": text(part_of(channel, "connection_details").get("name")),
        "consumers": _consumers(channel),
    }


def _shown(topic: str, thing: Object) -> dict[str, Any]:
    """Return what pages show of a queue or an exchange; its row as an object."""
    return {
        **_row(topic, thing),
        "arguments": part_of(thing, "arguments"),
        "policy": {
            "name": text(thing.get("policy")),
            "definition": part_of(thing, "effective_policy_definition"),
        },
    }


def _row(topic: str, thing: Object) -> dict[str, Any]:
    return {"state": "live", topic.removesuffix("s"): _named(topic, thing)}


def _bound(binding: Object) -> dict[str, Any]:
    return {**_named("bindings", binding), "arguments": part_of(binding, "arguments")}


def _consumers(thing: Object) -> list[dict[str, Any]]:
    found = thing.get("consumer_details")
    return [_named("consumers", one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _named(topic: str, thing: Object) -> dict[str, Any]:
    listing = next(listing for listing in LISTINGS if listing.topic == topic)
    return dict(zip((column.name for column in listing.columns), listing.row(thing), strict=True))
