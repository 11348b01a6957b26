"""Sources whose management API answers nonsense: they go on, and say what is wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import msgspec
import pytest

from rabbitry.web.feed.topics import Topic
from rabbitry.web.sources import Sources
from tests.support.waiting import eventually

Answer: TypeAlias = Callable[[str], tuple[int, bytes]]
_FIELDS = (
    "name", "vhost", "type", "message_stats", "messages", "messages_ready", "messages_unacknowledged", "consumers",
    "arguments", "policy", "state", "client_properties", "peer_host", "peer_port", "connection_details",
    "channel_details", "queue", "consumer_tag", "prefetch_count", "ack_required", "source", "destination",
    "destination_type", "routing_key", "properties_key", "recv_oct_details", "connected_at", "publishes", "exchange",
    "erlang_full_version", "timeout", "effective_policy_definition",
    "queue_totals", "object_totals", "mem_alarm", "consumer_details",
)  # fmt: skip

_LISTS = ("/bindings", "/channels", "/source", "/destination")
"""How paths of lists within a thing end."""
_DETAILS = {name: {"vhost": "/", "name": "a"} for name in ("queue", "exchange")} | {
    name: {"name": "a"} for name in ("connection", "channel")
}


@contextlib.asynccontextmanager
async def _api(answer: Answer) -> AsyncIterator[str]:
    """Serve what `answer` returns for a path: a status and a body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = answer(head.split()[1].decode().partition("?")[0])
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _everywhere(value: object) -> Answer:
    """Return answers of the right shape, with `value` in each field, and in each field of objects within."""
    return _objects(dict.fromkeys(_FIELDS, value))


def _objects(thing: dict[str, Any]) -> Answer:
    def answer(path: str) -> tuple[int, bytes]:
        if path.startswith("/api/rabbitry/"):
            return 404, b"{}"
        is_one = path == "/api/overview" or (path.count("/") > 2 and not path.endswith(_LISTS))
        return 200, json.dumps(thing if is_one else [thing]).encode()

    return answer


def _flowing(value: object) -> Answer:
    """Return answers with a topology that flows, and `value` where its details are."""
    stats = {"publish_details": {"rate": 5.0}, "publish_in_details": {"rate": 5.0}, "deliver_get_details": value}
    thing = {
        "name": "a", "vhost": "/", "messages": value, "message_stats": stats, "connection_details": {"name": "a"},
        "channel_details": {"name": "a", "connection_name": "a"}, "client_properties": {"connection_name": value},
        "source": "a", "destination": "a", "destination_type": "queue", "routing_key": value,
        "queue": {"name": "a", "vhost": "/"}, "consumer_tag": value, "consumer_details": [value],
        "publishes": [value, {"exchange": {"name": "a", "vhost": "/"}, "stats": value}, {"exchange": value}],
    }  # fmt: skip
    return _objects(thing)


def _subscribed(sources: Sources) -> dict[str, Topic]:
    for name, topic in sources.topics.items():
        if name == "raw":
            continue  # it takes messages from a broker, and has a test of its own
        topic.subscribe(_DETAILS.get(name, {}), lambda: None)
    elsewhere = {"attention", "sources", "raw", *_DETAILS, *sources.telemetry.topics}
    return {name: topic for name, topic in sources.topics.items() if name not in elsewhere}


@pytest.mark.parametrize("answers", [_everywhere, _flowing])
@pytest.mark.parametrize("value", [1, 10**400, "x", ["x"], {"a": ["b"]}, None, True])
async def test_members_of_wrong_types_count_as_missing(answers: Callable[[object], Answer], value: object) -> None:
    async with _api(answers(value)) as url:
        sources = Sources("amqp://127.0.0.1:1/", url)
        async with sources.running():
            for name, topic in _subscribed(sources).items():
                await eventually(lambda topic=topic: topic.at is not None, f"the first {name}")  # type: ignore[misc] # mypy infers no lambda with a default
            for topic in sources.topics.values():
                for seen in topic.subscriptions():
                    msgspec.json.encode(seen.take())


@pytest.mark.parametrize(
    ("status", "body", "state", "reason"),
    [
        (401, b"{}", "refused", "refused the login"),
        (401, b'{"reason": "Not monitor user"}', "refused", "(Not monitor user); see the user's tags and permissions"),
        (404, b"", "missing", "answered 404 to"),
        (500, b'{"reason": "<b>\\nno"}', "missing", ": <b> no"),
        (200, b"<html>", "missing", "JSON is malformed"),
        (200, b"[1]", "missing", "is it a management API?"),
        (200, b"[" * 100_000, "missing", "is it a management API?"),
    ],
)
async def test_an_api_that_is_none_is_reported(status: int, body: bytes, state: str, reason: str) -> None:
    async with _api(lambda path: (status, body)) as url:
        sources = Sources("amqp://127.0.0.1:1/", url)
        topic = sources.topics["broker"]  # other topics tell of other paths
        async with sources.running():
            topic.subscribe({}, lambda: None)
            told = sources.topics["sources"]
            seen = told.subscribe({}, lambda: None)
            shown: dict[str, Any] = {}

            def is_told() -> bool:
                part = seen.take() or {}
                shown.update(part.get("value", {}) | part.get("set", {}))
                return bool(shown["management"]["state"] == state)

            await eventually(is_told, f"state {state}")
            assert reason in shown["management"]["reason"]
            assert shown["management"]["todo"]


async def test_one_thing_that_cannot_be_asked_for_hides_no_other() -> None:
    def answer(path: str) -> tuple[int, bytes]:
        if path.startswith("/api/rabbitry/"):
            return 404, b"{}"
        if path.endswith("/bindings"):
            return 200, b"[]"
        odd = path.endswith("/odd")  # as RabbitMQ answers a list for a path that it reads otherwise
        deep = b'{"name": "a", "arguments": %b1%b}' % (b'{"x": ' * 50_000, b"}" * 50_000)
        return 200, b"[1]" if odd else deep if path.count("/") > 2 else b"[%b]" % deep

    async with _api(answer) as url:
        sources = Sources("amqp://127.0.0.1:1/", url)
        topic = sources.topics["queue"]
        seen = {name: topic.subscribe({"vhost": "/", "name": name}, lambda: None) for name in ("..", "", "odd", "a")}
        queues = sources.topics["queues"]
        queues.subscribe({}, lambda: None)
        async with sources.running():
            shown: dict[str, Any] = {}

            def is_told() -> bool:
                shown.update({name: value["value"] for name, each in seen.items() if (value := each.take())})
                return shown.keys() == seen.keys()

            await eventually(is_told, "all four")
            assert [shown[name]["state"] for name in ("..", "", "odd", "a")] == ["missing"] * 3 + ["live"]
            assert "can't be asked for" in shown[".."]["reason"]
            assert len(msgspec.json.encode(shown["a"])) < 1000
            await eventually(lambda: queues.at is not None, "the list")
            assert sources.topics["sources"].value["management"]["state"] == "live"  # type: ignore[attr-defined] # a Value
