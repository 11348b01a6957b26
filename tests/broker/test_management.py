"""The management API compared with RabbitMQ's: status codes, names and shapes; and the tools that use it."""

import asyncio
import base64
import hashlib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pika
import pytest

import rabbitry
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from tests import data
from tests.broker import management_cases as cases
from tests.broker.management_changes import CHANGES
from tests.support.management import Api, management_url
from tests.support.rabbitmq import RabbitMQ
from tests.support.replay import Replay, up_to
from tests.support.waiting import eventually, eventually_awaited, eventually_blocking


@pytest.fixture(scope="module")
def rabbit(module_rabbitmq: RabbitMQ) -> RabbitMQ:
    return module_rabbitmq


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        yield broker


def _without_what_differs(value: Any) -> Any:
    """Remove the hash in the name of a binding with arguments, and values that depend on the machine."""
    if isinstance(value, dict):
        return {key: _without_what_differs(item) for key, item in value.items() if key != "password_hash"}
    if isinstance(value, list):
        return [_without_what_differs(item) for item in value]
    return value


async def test_changes_have_the_same_answers(rabbit: RabbitMQ, broker: Broker) -> None:
    theirs, ours = Api(management_url(rabbit)), Api(broker.management_url)
    for step in CHANGES:
        expected = await asyncio.to_thread(theirs, *step)
        got = await asyncio.to_thread(ours, *step)
        assert (step, _without_what_differs(got)) == (step, _without_what_differs(expected))


_LISTS: Final = ("connections", "channels", "consumers", "exchanges", "queues", "bindings", "vhosts", "users",
                 "permissions", "nodes", "overview", "definitions", "queues/%2F/q", "exchanges/%2F/amq.topic",
                 "queues?page=1&page_size=5", "queues?columns=name,messages", "cluster-name")  # fmt: skip


async def test_objects_have_the_same_names(rabbit: RabbitMQ, broker: Broker) -> None:
    """Every name that tools read exists; Erlang's own fields are missing (docs/broker.md lists them)."""
    for url in (rabbit.url, broker.url):
        await asyncio.to_thread(_prepare, url)
    theirs, ours = Api(management_url(rabbit)), Api(broker.management_url)
    connections = [await asyncio.to_thread(_busy, url) for url in (rabbit.url, broker.url)]
    try:
        await asyncio.to_thread(_until_counted, theirs)
        for name in _LISTS:
            status, expected = await asyncio.to_thread(theirs, "GET", f"/api/{name}")
            got_status, got = await asyncio.to_thread(ours, "GET", f"/api/{name}")
            assert (name, got_status) == (name, status)
            if name == "nodes":
                assert {"name", "running", "mem_used", "disk_free", "uptime", "fd_used", "processors"} <= set(got[0])
                continue
            missing = _names(expected) - _names(got)
            assert {item for item in missing if item.split(".")[-1] not in _ONLY_ERLANG} == set(), name
    finally:
        for connection in connections:
            await asyncio.to_thread(connection.close)


_ONLY_ERLANG: Final = {
    "garbage_collection", "reductions", "reductions_details", "idle_since", "backing_queue_status", "consumer_capacity",
    "message_bytes_paged_out", "message_bytes_persistent", "message_bytes_ram", "message_bytes_unacknowledged",
    "messages_paged_out", "messages_ready_ram", "messages_unacknowledged_ram", "recoverable_slaves", "channel_stats",
    "message_stats", "churn_rates", "listeners", "user_who_performed_action", "recv_oct", "recv_oct_details",
    "send_oct", "send_oct_details", "erlang_version", "contexts", "incoming", "outgoing", "global_parameters",
}  # fmt: skip


def _names(value: Any) -> set[str]:
    """Return the names of an object, or of those in a list."""
    if isinstance(value, list):
        return set().union(*(_names(item) for item in value)) if value else set()
    if isinstance(value, dict):
        return set(value) | {f"items.{name}" for name in _names(value.get("items", []))}
    return set()


def _until_counted(api: Api) -> None:
    """Wait until RabbitMQ's statistics know of the consumer; each list is filled in its own time."""

    def counts(path: str) -> bool:
        return any(item.get("consumer_count") and "message_stats" in item for item in api("GET", path)[1])

    eventually_blocking(lambda: api("GET", "/api/consumers")[1], "a consumer in the statistics")
    eventually_blocking(lambda: counts("/api/channels"), "its channel")
    eventually_blocking(lambda: api("GET", "/api/connections")[1], "its connection")


def _prepare(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 10})
        channel.queue_bind("q", "amq.topic", "k.#", {"z": 1})
        channel.basic_publish("", "q", b"x", pika.BasicProperties(delivery_mode=2))


def _busy(url: str) -> Any:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_consume("q", lambda *args: None, consumer_tag="t")
    connection.process_data_events(0.1)
    return connection


async def test_requests_without_permission_are_refused(broker: Broker) -> None:
    url = broker.management_url
    broker.access.put_user("plain", broker.access.users["guest"].password_hash)
    broker.access.put_user("manager", broker.access.users["guest"].password_hash, ("management",))
    for login, path, expected in (
        ("guest:wrong", "/api/overview", (401, {"error": "not_authorised", "reason": "Login failed"})),
        ("plain:guest", "/api/overview", (401, {"error": "not_authorised", "reason": "Not management user"})),
        ("manager:guest", "/api/users", (401, {"error": "not_authorised", "reason": "Not administrator user"})),
        ("manager:guest", "/api/queues", (200, [])),
    ):
        assert await asyncio.to_thread(Api(url, login), "GET", path) == expected
    status, _ = await asyncio.to_thread(Api(url, "guest:guest"), "POST", "/api/queues/%2F/q/get", "a string")
    assert status in (400, 404)
    request = urllib.request.Request(f"{url}api/overview")  # noqa: S310 - our own URL
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, request)
    with caught.value as error:
        assert (error.code, error.headers["www-authenticate"]) == (401, 'Basic realm="RabbitMQ Management"')


async def test_definitions_are_exported_and_imported(rabbit: RabbitMQ, tmp_path: Path) -> None:
    await asyncio.to_thread(_prepare, rabbit.url)
    theirs = Api(management_url(rabbit))
    _, document = await asyncio.to_thread(theirs, "GET", "/api/definitions")
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        ours = Api(broker.management_url)
        assert await asyncio.to_thread(ours, "POST", "/api/definitions", document) == (204, None)
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        _, got = await asyncio.to_thread(Api(broker.management_url), "GET", "/api/definitions")
        for kind in ("users", "vhosts", "permissions", "queues", "exchanges", "bindings"):
            kept = [item for item in document[kind] if item.get("durable") is not False]
            assert sorted(map(str, got[kind])) == sorted(map(str, kept)), kind
        assert (await asyncio.to_thread(theirs, "POST", "/api/definitions", got))[0] == 204


async def test_users_of_definitions_can_log_in(rabbit: RabbitMQ, tmp_path: Path) -> None:
    def hashed(algorithm: str) -> str:
        return base64.b64encode(b"salt" + hashlib.new(algorithm, b"salts3cret").digest()).decode()

    users: list[dict[str, object]] = [
        {"name": "plain", "password": "s3cret", "tags": "administrator, monitoring"},
        {"name": "list", "password": "s3cret", "tags": ["management", "policymaker"]},
    ]
    for algorithm in ("sha256", "sha512", "md5"):
        hashing = f"rabbit_password_hashing_{algorithm}"
        user = {
            "name": algorithm,
            "password_hash": hashed(algorithm),
            "hashing_algorithm": hashing,
            "tags": "management",
        }
        users.append(dict(user))

    def seen(url: str) -> list[object]:
        api = Api(url)
        lines: list[object] = [api("POST", "/api/definitions", {"users": users})[0]]
        for user in users:
            name = user["name"]
            shown = api("GET", f"/api/users/{name}")[1]
            lines.append((shown["tags"], shown["hashing_algorithm"]))
            lines += [Api(url, f"{name}:{word}")("GET", "/api/whoami")[0] for word in ("s3cret", "wrong")]
        return lines

    expected = await asyncio.to_thread(seen, management_url(rabbit))
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        assert await asyncio.to_thread(seen, broker.management_url) == expected
        refused = {"users": [{"name": "new", "password": "x", "tags": ""}, {"name": "bad", "tags": 5}]}
        assert (await asyncio.to_thread(Api(broker.management_url), "POST", "/api/definitions", refused))[0] == 400
        assert "new" not in broker.access.users
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert all(broker.access.is_password(str(user["name"]), "s3cret") for user in users)


def _rabbitmqadmin(rabbit: RabbitMQ, tmp_path: Path) -> Path:
    """Get the tool from RabbitMQ, which serves the one in Debian's package."""
    program = tmp_path / "rabbitmqadmin"
    with urllib.request.urlopen(f"{management_url(rabbit).rstrip('/')}/cli/rabbitmqadmin") as answer:  # noqa: S310 - ours
        program.write_bytes(answer.read())
    return program


async def test_rabbitmqadmin_works(rabbit: RabbitMQ, broker: Broker, tmp_path: Path) -> None:
    program = await asyncio.to_thread(_rabbitmqadmin, rabbit, tmp_path)
    export = str(tmp_path / "definitions.json")
    steps = (
        ("declare", "queue", "name=admin-q", "durable=true"),
        ("declare", "exchange", "name=e", "type=fanout"),
        ("declare", "binding", "source=e", "destination=admin-q", "routing_key=k"),
        ("publish", "exchange=e", "routing_key=k", "payload=hello"),
        ("-f", "raw_json", "list", "queues", "name", "messages"),
        ("-f", "tsv", "list", "bindings", "source", "destination"),
        ("-f", "tsv", "list", "vhosts", "name"),
        ("get", "queue=admin-q", "ackmode=ack_requeue_false"),
        ("purge", "queue", "name=admin-q"),
        ("export", export),
        ("import", export),
        ("declare", "user", "name=ann", "password=secret", "tags=monitoring"),
        ("declare", "vhost", "name=other"),
        ("declare", "permission", "vhost=other", "user=ann", "configure=.*", "write=.*", "read=.*"),
        ("-f", "tsv", "list", "permissions"),
        ("delete", "vhost", "name=other"),
        ("delete", "user", "name=ann"),
        ("delete", "queue", "name=admin-q"),
        ("delete", "queue", "name=admin-q"),
        ("show", "overview"),
    )
    outputs: list[list[tuple[int, str]]] = []
    for port in (management_url(rabbit).rstrip("/").rpartition(":")[2], str(broker.management_port)):
        seen: list[tuple[int, str]] = []
        for step in steps:
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, str(program), "-H", "127.0.0.1", "-P", port, *step],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            seen.append((done.returncode, "" if step[-1] == "overview" else done.stdout + done.stderr))
        outputs.append(seen)
    for step, expected, got in zip(steps, *outputs, strict=True):
        if not {"queues", "bindings"} & set(step):  # RabbitMQ's counts come late, and it has other tests' queues
            assert (step, got) == (step, expected)


async def test_limits_and_connections_of_a_user_have_the_same_answers(rabbit: RabbitMQ, broker: Broker) -> None:
    paths = [
        f"/api/{kind}{name}" for kind in ("user-limits", "vhost-limits") for name in ("", "/guest", "/%2F", "/nope")
    ]
    paths += ["/api/connections/username/nope"]

    def seen(url: str) -> list[object]:
        return [*(Api(url)("GET", path) for path in paths), Api(url)("DELETE", paths[-1])]

    assert await asyncio.to_thread(seen, broker.management_url) == await asyncio.to_thread(seen, management_url(rabbit))


async def test_all_connections_of_a_user_are_closed(broker: Broker) -> None:
    api = Api(broker.management_url)
    async with rabbitry.connect(broker.url) as connection:
        shown = await asyncio.to_thread(api, "GET", "/api/connections/username/guest")
        assert [item["user"] for item in shown[1]] == ["guest"]
        before = set(broker.connections)
        assert await asyncio.to_thread(api, "DELETE", "/api/connections/username/guest") == (204, None)
        await eventually(lambda: not before & broker.connections, "the connection is closed")
        await eventually(lambda: connection.is_open, "it comes back, as after any close by force")


async def test_uptime_is_the_broker_s() -> None:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        broker.started_at -= 1000
        _, (node,) = await asyncio.to_thread(Api(broker.management_url), "GET", "/api/nodes")
        assert node["uptime"] >= 1_000_000


async def test_bindings_are_found_by_their_keys(rabbit: RabbitMQ, broker: Broker) -> None:
    def seen(url: str) -> list[object]:
        api, lines = Api(url), list[object]()
        for name in ("keys", "k/%"):
            path = urllib.parse.quote(name, safe="")
            api("PUT", f"/api/exchanges/%2F/{path}", {"type": "topic"})
            api("PUT", f"/api/queues/%2F/{path}", {})
            bindings = f"/api/bindings/%2F/e/{path}/q/{path}"
            for key in ("a.#", "*.log", "with blank", "plain", "~", "", "a+b", "100%", "ü", "x/y", "a~b", "(!)'"):
                location = api.location(bindings, {"routing_key": key})
                shown = [item["properties_key"] for item in api("GET", bindings)[1]]
                ways = [urllib.parse.quote(shown[0], safe=""), shown[0], location.rpartition("/")[2]]
                lines.append((key, location, shown, [api("GET", f"{bindings}/{way}")[0] for way in ways]))
                lines.append(api("DELETE", f"{bindings}/{ways[0]}")[0])
            api("DELETE", f"/api/queues/%2F/{path}")
            api("DELETE", f"/api/exchanges/%2F/{path}")
        api("PUT", "/api/queues/%2F/with.%23~blank%20in", {})
        lines.append(api("GET", "/api/queues/%2F/with.%23~blank%20in/bindings")[1][0]["properties_key"])
        api("DELETE", "/api/queues/%2F/with.%23~blank%20in")
        return lines

    expected = await asyncio.to_thread(seen, management_url(rabbit))
    assert await asyncio.to_thread(seen, broker.management_url) == expected


async def test_the_root_says_what_it_is(broker: Broker) -> None:
    with await asyncio.to_thread(urllib.request.urlopen, broker.management_url) as answer:
        page = answer.read().decode()
    assert "Rabbitry" in page
    assert "8003" in page


_NESTED: Final = b'{"arguments":' + b'{"a":' * 900 + b"1" + b"}" * 901
_SENSELESS: Final = (
    ("PUT", "/api/queues/%2F/large", b'{"durable":true,"arguments":{"x":1180591620717411303424}}'),
    ("PUT", "/api/queues/%2F/long", b'{"durable":true,"arguments":{"' + b"k" * 300 + b'":1}}'),
    ("PUT", "/api/queues/%2F/surrogate", b'{"durable":true,"arguments":{"x":"\\ud800"}}'),
    ("PUT", "/api/queues/%2F/nan", b'{"durable":true,"arguments":{"x":NaN}}'),
    ("PUT", "/api/queues/%2F/infinite", b'{"durable":true,"arguments":{"x":1e999}}'),
    ("PUT", "/api/queues/%2F/nested", _NESTED),
    ("PUT", "/api/queues/%2F/deep", b"[" * 100_000),
    ("PUT", f"/api/queues/%2F/{'n' * 256}", b"{}"),
    ("PUT", f"/api/exchanges/%2F/{'n' * 256}", b'{"durable":true}'),
    ("PUT", "/api/users/surrogate", b'{"tags":"\\ud800","password":"x"}'),
    ("PUT", "/api/policies/%2F/large", b'{"pattern":".*","definition":{"message-ttl":1180591620717411303424}}'),
    ("PUT", "/api/policies/%2F/priority", b'{"pattern":".*","definition":{"max-length":1},"priority":"--5"}'),
    (
        "PUT",
        "/api/policies/%2F/large-priority",
        b'{"pattern":".*","definition":{"max-length":1},"priority":1180591620717411303424}',
    ),
    ("POST", "/api/definitions", b'{"permissions":[{"user":"guest","vhost":"/","configure":"("}]}'),
    ("POST", "/api/definitions", b'{"bindings":[{"source":"amq.topic","vhost":"/","destination_type":"queue"}]}'),
    ("POST", "/api/definitions", b'{"users":[{"name":"' + b"n" * 256 + b'"}]}'),
    ("POST", "/api/definitions", b'{"users":[{}]}'),
    ("POST", "/api/definitions", b'{"vhosts":[{}]}'),
    ("POST", "/api/definitions", b'{"queues":[{"vhost":"/"}]}'),
    ("POST", "/api/definitions", b'{"exchanges":[{"vhost":"/","type":"direct"}]}'),
    ("POST", "/api/definitions", b'{"permissions":[{"user":"guest","vhost":"nowhere"}]}'),
    ("POST", "/api/definitions", b'{"permissions":[{"user":"nobody","vhost":"/"}]}'),
    (
        "POST",
        "/api/exchanges/%2F/amq.default/publish",
        b'{"routing_key":"q","payload":"","properties":{"delivery_mode":3}}',
    ),
    (
        "POST",
        "/api/exchanges/%2F/amq.default/publish",
        b'{"routing_key":"q","payload":"","properties":{"reply_to":"amq.rabbitmq.reply-to"}}',
    ),
    ("POST", "/api/exchanges/%2F/amq.default/publish", b'{"routing_key":"q","payload":"\\ud800"}'),
    (
        "POST",
        "/api/exchanges/%2F/amq.default/publish",
        b'{"routing_key":"q","payload":"","properties":{"expiration":"soon"}}',
    ),
    (
        "POST",
        "/api/exchanges/%2F/amq.default/publish",
        b'{"routing_key":"q","payload":"","properties":{"user_id":"somebody"}}',
    ),
    (
        "POST",
        "/api/exchanges/%2F/amq.default/publish",
        b'{"routing_key":"q","payload":"","properties":{"headers":{"CC":1}}}',
    ),
    ("GET", f"/api/health/checks/port-listener/{'9' * 250}", None),
    ("GET", f"/api/queues?page={'9' * 5000}", None),
)


async def test_what_makes_no_sense_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        api = Api(broker.management_url)
        assert (await asyncio.to_thread(api, "PUT", "/api/queues/%2F/q", {"durable": True}))[0] == 201
        for method, path, body in _SENSELESS:
            status, _ = await asyncio.to_thread(api.raw, method, path, body)
            assert (status, path) == (400, path)
        assert not broker.failed.done()
        status, queues = await asyncio.to_thread(api, "GET", "/api/queues")
        assert (status, [queue["name"] for queue in queues]) == (200, ["q"])


async def test_a_virtual_host_that_was_deleted_stays_so(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        api = Api(broker.management_url)
        for method, path, body in (
            ("PUT", "/api/vhosts/gone", {}),
            ("PUT", "/api/exchanges/gone/from", {"type": "fanout", "durable": True}),
            ("PUT", "/api/exchanges/gone/to", {"type": "fanout", "durable": True, "auto_delete": True}),
            ("PUT", "/api/queues/gone/q", {"durable": True}),
            ("POST", "/api/bindings/gone/e/from/e/to", {}),
            ("POST", "/api/bindings/gone/e/to/q/q", {}),
            ("DELETE", "/api/vhosts/gone", None),
        ):
            assert (await asyncio.to_thread(api, method, path, body))[0] in (201, 204)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert list(broker.vhosts) == ["/"]


async def test_what_clients_send_is_shown_as_json_can_say_it(broker: Broker) -> None:
    odd: dict[str, FieldValue] = {"\udcff": "\udcff".encode("utf-8", "surrogateescape"), "x": [1.5, None]}
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("odd", arguments=odd)
        await channel.declare_exchange("odd", arguments=odd)
        await channel.bind_queue("odd", "odd", arguments=odd)
        await channel.publish(b"", routing_key="odd", properties=Properties(content_type="\udcff", headers=odd))
        async with channel.consume("odd", arguments=odd):
            api = Api(broker.management_url)
            for path in ("queues", "exchanges", "bindings", "consumers", "definitions"):
                status, _ = await asyncio.to_thread(api, "GET", f"/api/{path}")
                assert (status, path) == (200, path)
            body = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        status, messages = await asyncio.to_thread(api, "POST", "/api/queues/%2F/odd/get", body)
        assert status == 200
        assert messages[0]["properties"] == {
            "content_type": "\ufffd",
            "delivery_mode": 2,
            "headers": {"\ufffd": "/w==", "x": [1.5, None]},
            "message_id": messages[0]["properties"]["message_id"],
        }


async def test_settings_and_policies_have_the_same_answers_on_both_brokers(rabbit: RabbitMQ, broker: Broker) -> None:
    theirs, ours = Api(management_url(rabbit)), Api(broker.management_url)
    for step in cases.SETTINGS:
        expected = await asyncio.to_thread(theirs, *step)
        got = await asyncio.to_thread(ours, *step)
        assert (step, _without_what_differs(got)) == (step, _without_what_differs(expected))


async def test_lists_are_paged_and_sorted_alike_on_both_brokers(rabbit: RabbitMQ, broker: Broker) -> None:
    def seen(url: str) -> list[object]:
        api = Api(url)
        api("PUT", "/api/vhosts/paged", {})
        for name in ("Alpha", "beta", "alphabet", "x.y", "z"):
            api("PUT", f"/api/queues/paged/{name}", {"durable": name < "b"})
        lines: list[object] = [(path, api("GET", f"{path}&columns=name,durable")) for path in cases.LISTS]
        lines.append(api("GET", "/api/queues/paged?columns=nosuch"))
        api("DELETE", "/api/vhosts/paged")
        return lines

    assert await asyncio.to_thread(seen, broker.management_url) == await asyncio.to_thread(seen, management_url(rabbit))


async def test_imports_are_accepted_and_refused_alike_on_both_brokers(rabbit: RabbitMQ, broker: Broker) -> None:
    def answers(url: str) -> list[tuple[int, Any]]:
        api = Api(url)
        seen = [api("POST", "/api/definitions", document) for document in (*cases.IMPORTED, *cases.REFUSED)]
        for path in cases.LEFT_BEHIND:
            api("DELETE", path)
        return seen

    expected = await asyncio.to_thread(answers, management_url(rabbit))
    got = await asyncio.to_thread(answers, broker.management_url)
    assert [status for status, _ in got] == [status for status, _ in expected]


async def test_a_refused_import_changes_nothing(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        api = Api(broker.management_url)
        for good in cases.IMPORTED:
            assert (await asyncio.to_thread(api, "POST", "/api/definitions", good))[0] == 204
        before = await asyncio.to_thread(api, "GET", "/api/definitions")
        for document in (*cases.REFUSED, *cases.REFUSED_HERE):
            status, answer = await asyncio.to_thread(api, "POST", "/api/definitions", document)
            assert (status, answer["error"]) == (400, "bad_request"), document
            assert await asyncio.to_thread(api, "GET", "/api/definitions") == before
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        _, again = await asyncio.to_thread(Api(broker.management_url), "GET", "/api/definitions")
        _, exported = before
        assert again.keys() == exported.keys()
        for section, items in again.items():
            assert items == exported[section] or sorted(map(str, items)) == sorted(map(str, exported[section]))


_TRACKING: Final = ("rabbit_connection_tracking", "rabbit_channel_tracking")


async def test_limits_and_topic_permissions_are_enforced_alike(rabbit: RabbitMQ, broker: Broker) -> None:
    def counted_there() -> tuple[int, int]:
        counts = [f'{kind}:count_tracked_items_in({{user, <<"limited">>}})' for kind in _TRACKING]
        connections, channels = rabbit.eval(f"{{{', '.join(counts)}}}.").strip("{}").split(",")
        return int(connections), int(channels)

    def counted_here() -> tuple[int, int]:
        mine = [known for known in list(broker.connections) if known.user == "limited"]
        return len(mine), sum(len(known.channels) for known in mine)

    api = Api(management_url(rabbit))
    expected = await asyncio.to_thread(cases.refused_by_limits, api, rabbit.url, counted_there)
    api = Api(broker.management_url)
    got = await asyncio.to_thread(cases.refused_by_limits, api, broker.url, counted_here)
    assert got == expected
    assert len([text for text in expected if text == "done"]) == 6


async def test_message_stats_are_rabbitmq_s(rabbit: RabbitMQ, broker: Broker) -> None:
    """Counters of queues, exchanges, channels and the virtual host, and which of them are shown at all."""
    for api, amqp in ((Api(management_url(rabbit)), rabbit.url), (Api(broker.management_url), broker.url)):
        counting = await asyncio.to_thread(cases.Counting, api, amqp)
        try:
            for path, expected in cases.COUNTED.items():
                await eventually_awaited(partial(counting.is_counted, path, expected), f"{path}: {expected}")
        finally:
            await asyncio.to_thread(counting.close)


async def test_a_channel_tells_which_exchanges_it_publishes_to(broker: Broker) -> None:
    api = Api(broker.management_url)
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()

        async def publishes() -> list[dict[str, Any]]:
            _, (listed,) = await asyncio.to_thread(api, "GET", "/api/channels")
            path = f"/api/channels/{urllib.parse.quote(listed['name'], safe='')}"
            _, details = await asyncio.to_thread(api, "GET", path)
            found: list[dict[str, Any]] = details["publishes"]
            return found

        assert await publishes() == []
        await channel.publish(b"x", exchange="amq.fanout", mandatory=False)
        (only,) = await publishes()
        assert only["exchange"] == {"name": "amq.fanout", "vhost": "/"}
        assert only["stats"]["publish"] == 1
        await channel.publish(b"x", exchange="amq.topic", mandatory=False)
        both = await publishes()
        assert [one["exchange"]["name"] for one in both] == ["amq.fanout", "amq.topic"]
        assert [one["stats"] for one in both] == [{}, {}]


async def test_a_client_of_amqp_0_8_is_listed_as_one(broker: Broker, rabbit: RabbitMQ) -> None:
    opened = up_to(data.load("refused", data.AMQPLIB), (20, 11))

    def look(url: str, management_url: str) -> None:
        def listed() -> set[str]:
            return {known.get("protocol", "") for known in Api(management_url)("GET", "/api/connections")[1]}

        with Replay(url, opened):
            # RabbitMQ lists a connection, and drops those of other tests, some seconds later.
            eventually_blocking(lambda: listed() == {"AMQP 0-8"}, "the connection alone")

    await asyncio.to_thread(look, broker.url, broker.management_url)
    await asyncio.to_thread(look, rabbit.url, management_url(rabbit))
