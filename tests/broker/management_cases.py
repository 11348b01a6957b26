"""What the management API shows, with the values of RabbitMQ 3.10.8; test_management.py tries it on both brokers."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
from pika.exceptions import UnroutableError

from tests.support.management import Api
from tests.support.waiting import eventually_blocking

_VHOST: Final = "counting"
_IDLE: Final = dict.fromkeys(
    ("deliver", "deliver_no_ack", "deliver_get", "get", "get_no_ack", "get_empty", "ack", "redeliver"), 0
)
COUNTED: Final[dict[str, object]] = {
    f"queues/{_VHOST}/both": {"publish": 8}
    | _IDLE
    | {"deliver": 3, "deliver_get": 6, "get": 3, "ack": 2, "redeliver": 1},
    f"queues/{_VHOST}/plain": {"publish": 5} | _IDLE | {"deliver_no_ack": 4, "deliver_get": 5, "get_no_ack": 1},
    f"queues/{_VHOST}/empty": _IDLE | {"get_empty": 2},
    f"queues/{_VHOST}/expiring": {"publish": 1},
    f"queues/{_VHOST}/untouched": None,
    f"queues/{_VHOST}/dead": None,
    f"exchanges/{_VHOST}/first": {"publish_in": 5, "publish_out": 10},
    f"exchanges/{_VHOST}/second": None,
    f"exchanges/{_VHOST}/amq.default": {"publish_in": 7, "publish_out": 7},
    "channels/1": {"publish": 12, "confirm": 12, "return_unroutable": 1, "drop_unroutable": 2}
    | _IDLE
    | {"deliver_get": 4, "get": 3, "get_no_ack": 1, "get_empty": 2, "ack": 2, "redeliver": 1},
    "channels/2": _IDLE | {"deliver": 3, "deliver_no_ack": 4, "deliver_get": 7},
    f"vhosts/{_VHOST}": {"publish": 12, "confirm": 12, "return_unroutable": 1, "drop_unroutable": 2}
    | _IDLE
    | {"deliver": 3, "deliver_no_ack": 4, "deliver_get": 11, "get": 3, "get_no_ack": 1, "get_empty": 2}
    | {"ack": 2, "redeliver": 1},
}  # fmt: skip
"""Path below /api/ → message_stats without rates, or None. A channel's path is its number."""


_LIMITED: Final = "/api/vhosts/limited"
_POLICY: Final = "/api/policies/%2F/tried"
SETTINGS: Final[tuple[tuple[str, str, object], ...]] = (
    ("PUT", _LIMITED, {"description": "for tests", "tags": "a,b"}),
    ("PUT", "/api/users/limited", {"password": "secret", "tags": ""}),
    ("PUT", "/api/permissions/limited/limited", {"configure": ".*", "write": ".*", "read": ".*"}),
    ("PUT", "/api/vhost-limits/limited/max-queues", {"value": 1}),
    ("PUT", "/api/vhost-limits/limited/nonsense", {"value": 1}),
    ("PUT", "/api/vhost-limits/limited/max-queues", {"value": "x"}),
    ("PUT", "/api/vhost-limits/limited/max-queues", {"value": 1.5}),
    ("PUT", "/api/vhost-limits/limited/max-queues", {}),
    ("PUT", "/api/vhost-limits/missing/max-queues", {"value": 1}),
    ("GET", "/api/vhost-limits", None),
    ("GET", "/api/vhost-limits/limited", None),
    ("GET", "/api/parameters", None),
    ("GET", "/api/parameters/vhost-limits", None),
    ("GET", "/api/parameters/vhost-limits/limited/limits", None),
    ("PUT", "/api/queues/limited/one", {}),
    ("PUT", "/api/queues/limited/one", {}),
    ("PUT", "/api/queues/limited/two", {}),
    ("DELETE", "/api/vhost-limits/limited/max-queues", None),
    ("DELETE", "/api/vhost-limits/limited/max-queues", None),
    ("PUT", "/api/queues/limited/two", {}),
    ("PUT", "/api/user-limits/limited/max-channels", {"value": 5}),
    ("PUT", "/api/user-limits/limited/nonsense", {"value": 5}),
    ("PUT", "/api/user-limits/limited/max-channels", {"value": "x"}),
    ("PUT", "/api/user-limits/limited/max-channels", {}),
    ("PUT", "/api/user-limits/nobody/max-channels", {"value": 5}),
    ("GET", "/api/user-limits", None),
    ("GET", "/api/user-limits/limited", None),
    ("GET", "/api/users/limited?columns=name,limits", None),
    ("DELETE", "/api/user-limits/limited/max-channels", None),
    ("GET", "/api/user-limits/limited", None),
    ("PUT", "/api/topic-permissions/limited/limited", {"exchange": "amq.topic", "write": "^a", "read": "^b"}),
    ("PUT", "/api/topic-permissions/limited/limited", {"exchange": "other", "write": "", "read": ""}),
    ("PUT", "/api/topic-permissions/limited/limited", {"exchange": "amq.topic"}),
    ("PUT", "/api/topic-permissions/limited/nobody", {"exchange": "amq.topic", "write": "", "read": ""}),
    ("GET", "/api/topic-permissions", None),
    ("DELETE", "/api/topic-permissions/limited/limited/other", None),
    ("GET", "/api/topic-permissions/limited/limited", None),
    ("GET", "/api/users/limited/topic-permissions", None),
    ("GET", "/api/vhosts/limited/topic-permissions", None),
    ("DELETE", "/api/topic-permissions/limited/limited", None),
    ("DELETE", "/api/topic-permissions/limited/limited", None),
    ("GET", "/api/topic-permissions/limited/limited", None),
    ("PUT", "/api/cluster-name", {}),
    ("PUT", "/api/cluster-name", {"name": "renamed"}),
    ("GET", "/api/cluster-name", None),
    ("GET", "/api/overview?columns=cluster_name", None),
    ("PUT", "/api/global-parameters/mine", {"value": {"a": [1, "b"]}}),
    ("PUT", "/api/global-parameters/mine", {"value": 5}),
    ("PUT", "/api/global-parameters/mine", {}),
    ("GET", "/api/global-parameters/mine", None),
    ("DELETE", "/api/global-parameters/mine", None),
    ("DELETE", "/api/global-parameters/mine", None),
    ("PUT", "/api/parameters/shovel/%2F/x", {"value": {"src-uri": "amqp://"}}),
    ("PUT", "/api/parameters/federation-upstream/%2F/x", {"value": {"uri": "amqp://"}}),
    ("PUT", "/api/parameters/shovel/%2F/x", {}),
    ("GET", "/api/parameters/shovel/%2F", None),
    ("GET", "/api/parameters/shovel/%2F/x", None),
    ("DELETE", "/api/parameters/shovel/%2F/x", None),
    ("PUT", "/api/feature-flags/nope/enable", {}),
    ("POST", "/api/rebalance/queues", {}),
    ("POST", "/api/vhosts/limited/start/nowhere", {}),
    ("POST", "/api/queues/limited/one/actions", {"action": "nope"}),
    ("POST", "/api/queues/limited/one/actions", {}),
    ("GET", "/api/health/checks/certificate-expiration/1/days", None),
    ("GET", "/api/health/checks/certificate-expiration/x/days", None),
    ("GET", "/api/health/checks/certificate-expiration/1/ages", None),
    ("GET", "/api/auth", None),
    ("GET", "/api/overview?msg_rates_age=0&msg_rates_incr=5", None),
    ("GET", "/api/overview?msg_rates_age=20&msg_rates_incr=-1", None),
    ("GET", "/api/overview?lengths_age=90000000&lengths_incr=900", None),
    ("GET", "/api/federation-links", None),
    ("GET", "/api/shovels", None),
    *(
        ("PUT", _POLICY, {"pattern": "^tried", "definition": definition})
        for definition in (
            {}, {"nope": 1}, {"nope": 1, "more": "x"}, {"max-length": "x"}, {"max-length": -1}, {"max-length": None},
            {"max-length-bytes": 1.5}, {"message-ttl": -1}, {"message-ttl": 2**63 - 1}, {"expires": 0},
            {"expires": 2**63 - 1}, {"overflow": "zz"}, {"delivery-limit": -7},
            {"dead-letter-exchange": 5}, {"dead-letter-routing-key": 5}, {"alternate-exchange": 7},
            {"queue-mode": "zz"}, {"queue-version": 7}, {"queue-master-locator": "zz"}, {"queue-leader-locator": "zz"},
            {"max-in-memory-length": -1}, {"max-in-memory-bytes": -1}, {"dead-letter-strategy": "zz"},
            {"ha-mode": "nope"}, {"ha-mode": "exactly"}, {"federation-upstream-set": "all"},
            *({"max-length": value} for value in (["a"], [1, "b"], [65, 66], {}, {"a": 1}, "ü", "€", 'a"b', True, [])),
            *({"max-age": value} for value in ("1h", "10D", "1", "1x")),
            *({"stream-max-segment-size-bytes": value} for value in (0, 500, -1, "1", 1.5)),
            *({"initial-cluster-size": value} for value in (0, 1, -1, "1", None)),
            {"ha-params": 1}, {"ha-sync-mode": "manual"}, {"ha-sync-mode": "x"}, {"ha-promote-on-failure": "always"},
            {"ha-mode": "all"}, {"ha-mode": "all", "ha-params": 1}, {"ha-mode": "exactly", "ha-params": 2},
            {"ha-mode": "exactly", "ha-params": 0}, {"ha-mode": "exactly", "ha-params": "2"},
            {"ha-mode": "nodes"}, {"ha-mode": "nodes", "ha-params": []}, {"ha-mode": "nodes", "ha-params": "a"},
            {"ha-mode": "nodes", "ha-params": ["a@b"]}, {"ha-mode": "nodes", "ha-params": ["a", 1]},
            {"ha-mode": "all", "ha-sync-mode": "automatic", "ha-sync-batch-size": 5},
            {"ha-mode": "all", "ha-sync-batch-size": 0}, {"ha-mode": "all", "ha-promote-on-shutdown": "x"},
        )
    ),
    ("PUT", _POLICY, {"pattern": "(", "definition": {"max-length": 1}}),
    ("PUT", _POLICY, {"pattern": 5, "definition": {"max-length": 1}}),
    ("PUT", _POLICY, {"definition": {"max-length": 1}}),
    ("PUT", _POLICY, {"pattern": "^tried"}),
    ("PUT", _POLICY, {}),
    ("PUT", _POLICY, {"pattern": "^tried", "definition": {"max-length": 1}, "priority": "x"}),
    ("PUT", _POLICY, {"pattern": "^tried", "definition": {"max-length": 1}, "priority": "5"}),
    ("PUT", _POLICY, {"pattern": "^tried", "definition": {"max-length": 1}, "priority": 1.5}),
    ("GET", _POLICY, None),
    ("PUT", _POLICY, {"pattern": "^tried", "definition": {"max-length": 1}, "apply-to": "nope"}),
    ("PUT", _POLICY, {"pattern": "^tried", "definition": {"max-length": 1}, "priority": 3, "apply-to": "queues"}),
    ("GET", _POLICY, None),
    ("DELETE", _POLICY, None),
    ("DELETE", "/api/users/limited", None),
    ("DELETE", _LIMITED, None),
)  # fmt: skip


def _queue(name: str, **changed: object) -> dict[str, object]:
    return {"name": name, "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}} | changed


def _exchange(name: str, **changed: object) -> dict[str, object]:
    return _queue(name, type="fanout", internal=False) | changed


def _binding(**changed: object) -> dict[str, object]:
    ends = {"source": "taken", "vhost": "/", "destination": "taken", "destination_type": "queue"}
    return {**ends, "routing_key": "k", "arguments": {}} | changed


def _policy(**changed: object) -> dict[str, object]:
    definition: dict[str, object] = {"max-length": 1}
    return {"vhost": "/", "name": "p", "pattern": "^no", "definition": definition, "priority": 0} | changed


IMPORTED: Final[tuple[dict[str, object], ...]] = (
    {},
    {"queues": [_queue("taken")], "exchanges": [_exchange("taken")], "bindings": [_binding()]},
    {"queues": [_queue("taken", durable=False)], "exchanges": [_exchange("taken", type="topic")]},
    {"queues": [_queue("taken", arguments={"x-max-length": 5})]},
    {"queues": [_queue("amq.gen-JzTY20BRgKO")], "exchanges": [_exchange("amq.mine"), _exchange("")]},
    {"exchanges": [_exchange("amq.direct", type="topic")]},
    {"bindings": [_binding(source="missing", destination="missing"), _binding(vhost="missing"), _binding(source="")]},
    {"queues": [_queue("more", arguments=[])], "bindings": [_binding(source="amq.topic", destination="more")]},
    {"policies": [_policy()]},
    {"users": [{"name": "taken", "password_hash": "", "tags": ["a"], "limits": {"max-channels": 3}}]},
    {"vhosts": [{"name": "taken", "description": "d", "tags": ["a"], "limits": []}]},
    {"topic_permissions": [{"user": "taken", "vhost": "/", "exchange": "amq.topic", "write": "^a", "read": ""}]},
    {"parameters": [{"component": "vhost-limits", "vhost": "taken", "name": "limits", "value": {"max-queues": 7}}]},
    {"global_parameters": [{"name": "mine", "value": {"a": 1}}]},
)
"""Documents that RabbitMQ accepts (204), in this order."""
_GOOD: Final[dict[str, list[dict[str, object]]]] = {
    "users": [{"name": "first", "password_hash": "", "tags": ""}],
    "vhosts": [{"name": "first"}],
    "permissions": [{"user": "first", "vhost": "first", "configure": "", "write": "", "read": ""}],
    "policies": [_policy(vhost="first")],
    "queues": [_queue("first")],
    "exchanges": [_exchange("first")],
    "bindings": [_binding(source="first", destination="first")],
}
_WRONG: Final[tuple[tuple[str, object], ...]] = (
    ("users", {"name": "u"}),
    ("users", {"name": "u", "password_hash": "!!", "tags": ""}),
    ("permissions", {"user": "nobody", "vhost": "/", "configure": "", "write": "", "read": ""}),
    ("permissions", {"user": "guest", "vhost": "missing", "configure": "", "write": "", "read": ""}),
    ("permissions", {"user": "guest", "vhost": "/", "configure": "(", "write": "", "read": ""}),
    ("permissions", {"user": "guest", "vhost": "/"}),
    ("topic_permissions", {"user": "guest", "vhost": "/", "exchange": "amq.topic", "write": "(", "read": ""}),
    ("parameters", {"component": "shovel", "vhost": "/", "name": "n", "value": {}}),
    ("parameters", {"component": "policy", "vhost": "/", "name": "n", "value": {}}),
    ("policies", _policy(vhost="missing")),
    ("policies", _policy(definition={"nope": 1})),
    ("policies", _policy(definition={"max-length": "x"})),
    ("policies", _policy(pattern="(")),
    ("policies", {"vhost": "/", "name": "p", "pattern": "^no"}),
    ("exchanges", _exchange("x", vhost="missing")),
    ("exchanges", _exchange("x", type="nope")),
    ("exchanges", _exchange("x", type=5)),
    ("queues", _queue("wrong", vhost="missing")),
    ("queues", _queue("wrong", durable="true")),
    ("queues", {"name": "wrong", "vhost": "/"}),
    ("queues", _queue("wrong", arguments="x")),
    ("queues", _queue("wrong", arguments={"x-message-ttl": "x"})),
    ("bindings", {"source": "amq.topic", "vhost": "/"}),
    ("bindings", _binding(destination_type="nope")),
)
REFUSED: Final = tuple({**_GOOD, section: [*_GOOD.get(section, []), item]} for section, item in _WRONG)
"""Documents with one fault after valid parts, which RabbitMQ refuses with 400 after applying half of them."""
LEFT_BEHIND: Final = (
    "/api/vhosts/first", "/api/vhosts/taken", "/api/users/first", "/api/users/taken", "/api/users/u",
    "/api/policies/%2F/p", "/api/queues/%2F/taken", "/api/queues/%2F/more", "/api/queues/%2F/first",
    "/api/exchanges/%2F/taken", "/api/exchanges/%2F/first", "/api/queues/%2F/wrong", "/api/global-parameters/mine",
)  # fmt: skip
"""Objects to delete after all cases."""
REFUSED_HERE: Final = (
    {**_GOOD, "nonsense": [1]},
    {**_GOOD, "queues": {}},
    {**_GOOD, "bindings": ["x"]},
)
"""More documents, which RabbitMQ accepts or crashes on."""

LISTS: Final = tuple(
    f"/api/queues/paged?{query}"
    for query in (
        "page=1&page_size=2", "page=2&page_size=2", "page=1&name=alpha", "page=1&name=^ALP&use_regex=true",
        "page=1&name=(&use_regex=true", "page=1&name=[&use_regex=false", "page=1&page_size=0", "page=1&page_size=x",
        "page=1&page_size=501", "page=-1", "page=3&page_size=5", "page=1.5", "page_size=2", "page=1&sort=durable",
        "page=1&sort=durable&sort_reverse=true", "sort=nosuch", "sort=name&sort_reverse=true", "name=alpha",
        "page=1&name=nothing", "page=2&name=nothing", "page=1&use_regex=maybe&name=a", "page=", "page=1&page_size=",
        "sort=durable",
    )
)  # fmt: skip
"""Queries for names of the queues of one virtual host."""


def refused_by_limits(api: Api, url: str, in_use: Callable[[], tuple[int, int]]) -> list[str]:
    """Reach every limit, and use routing keys that are not allowed; return the broker's answers. Blocks.

    in_use: returns how many connections and channels the broker counts for user `limited`. RabbitMQ does so a moment
    after one was opened or closed.
    """
    for path, body in (
        ("vhosts/limits", {}), ("users/limited", {"password": "secret", "tags": ""}),
        ("permissions/limits/limited", {"configure": ".*", "write": ".*", "read": ".*"}),
        ("topic-permissions/limits/limited", {"exchange": "amq.topic", "write": "^{username}", "read": "^{vhost}"}),
        ("vhost-limits/limits/max-queues", {"value": 1}), ("vhost-limits/limits/max-connections", {"value": 2}),
        ("user-limits/limited/max-channels", {"value": 1}),
    ):  # fmt: skip
        assert api("PUT", f"/api/{path}", body)[0] in (201, 204)
    parameters = pika.ConnectionParameters(
        "127.0.0.1", urlsplit(url).port, "limits", pika.PlainCredentials("limited", "secret")
    )
    said: list[str] = []

    def attempt(what: Callable[[], object]) -> None:
        try:
            what()
            said.append("done")
        except (pika.exceptions.AMQPError, pika.exceptions.ChannelClosedByBroker) as error:
            said.append(str(error))

    def counted(connections: int, channels: int) -> None:
        eventually_blocking(lambda: in_use() == (connections, channels), f"{connections} and {channels} are counted")

    for use in _USES:
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        counted(1, 1)
        attempt(functools.partial(use, channel))
        if connection.is_open:
            connection.close()
        counted(0, 0)
    with pika.BlockingConnection(parameters), pika.BlockingConnection(parameters):
        counted(2, 0)
        attempt(lambda: pika.BlockingConnection(parameters))
    api("PUT", "/api/user-limits/limited/max-connections", {"value": 0})
    attempt(lambda: pika.BlockingConnection(parameters))
    for path in ("users/limited", "vhosts/limits"):
        api("DELETE", f"/api/{path}")
    return said


_USES: Final[tuple[Callable[[Any], object], ...]] = (
    lambda channel: channel.queue_declare("one"),
    lambda channel: channel.queue_declare("one"),
    lambda channel: channel.queue_declare("two"),
    lambda channel: channel.queue_bind("one", "amq.topic", "limits.all"),
    lambda channel: channel.queue_bind("one", "amq.topic", "limited.all"),
    lambda channel: channel.queue_unbind("one", "amq.topic", "limited.all"),
    lambda channel: channel.queue_bind("one", "amq.direct", "any"),
    lambda channel: (channel.confirm_delivery(), channel.basic_publish("amq.topic", "limited.1", b"")),
    lambda channel: (channel.confirm_delivery(), channel.basic_publish("amq.topic", "other.1", b"")),
    lambda channel: channel.exchange_declare("mine", "fanout"),
    lambda channel: channel.exchange_bind("mine", "amq.topic", "other.#"),
    lambda channel: channel.connection.channel(),
)


class Counting:
    """Everything that is counted, done once in a virtual host of its own. All but `is_counted` blocks."""

    def __init__(self, api: Api, url: str) -> None:
        self._api = api
        assert api("PUT", f"/api/vhosts/{_VHOST}", {})[0] == 201
        address = urlsplit(url)
        parameters = pika.ConnectionParameters("127.0.0.1", address.port, _VHOST)
        self._connection = pika.BlockingConnection(parameters)
        self._do_everything()

    def _do_everything(self) -> None:
        channel = self._connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("first", "fanout")
        channel.exchange_declare("second", "topic")
        channel.exchange_bind("second", "first")
        channel.queue_declare("dead")
        channel.queue_declare("expiring", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        for name in ("both", "empty", "untouched", "plain"):
            channel.queue_declare(name)
        channel.queue_bind("both", "first")
        channel.queue_bind("plain", "second", "#")
        for _ in range(5):
            channel.basic_publish("first", "", b"x")
        for _ in range(3):
            channel.basic_publish("", "both", b"y", pika.BasicProperties(delivery_mode=2))
        channel.basic_publish("", "expiring", b"y", pika.BasicProperties(expiration="0"))
        with contextlib.suppress(UnroutableError):
            channel.basic_publish("", "nowhere", b"", mandatory=True)
        for _ in range(2):
            channel.basic_publish("", "nowhere", b"")
        self._get(channel)
        consuming = self._connection.channel()
        consuming.basic_qos(prefetch_count=3)
        consuming.basic_consume("both", lambda *delivery: None)
        consuming.basic_consume("plain", lambda *delivery: None, auto_ack=True)
        self._connection.process_data_events(0)

    @staticmethod
    def _get(channel: Any) -> None:
        for settle in (channel.basic_ack, channel.basic_nack, channel.basic_ack):
            settle(channel.basic_get("both")[0].delivery_tag)
        channel.basic_get("plain", auto_ack=True)
        channel.basic_get("empty")
        channel.basic_get("empty", auto_ack=True)

    async def is_counted(self, path: str, expected: object) -> bool:
        """Whether the answer of a path has these counters; RabbitMQ updates them some seconds later."""
        return await asyncio.to_thread(self._counters, path) == expected

    def _counters(self, path: str) -> object:
        kind, _, name = path.partition("/")
        if kind == "channels":
            shown = self._api("GET", f"/api/vhosts/{_VHOST}/channels")[1]
            name = next((quote(item["name"], safe="") for item in shown if str(item["number"]) == name), "missing")
        stats = self._api("GET", f"/api/{kind}/{name}")[1].get("message_stats")
        return stats and {name: value for name, value in stats.items() if not name.endswith("_details")}

    def close(self) -> None:
        """Close the connection, and delete the virtual host."""
        self._connection.close()
        self._api("DELETE", f"/api/vhosts/{_VHOST}")
