"""`rabbitry queues` and its sisters, from either broker."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

import rabbitry
from tests.support import commands
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

_OF_EACH_PATH = ("queues", "connections")
"""Listings of a virtual host whose paths in the API differ in form."""
_ALL = {"configure": ".*", "write": ".*", "read": ".*"}
_WORDS = ("queues", "exchanges", "bindings", "connections", "channels", "consumers")


@pytest.fixture(params=["embedded", "rabbitmq"], scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A broker with its management API, as the environment's variables."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        assert server.management_url is not None
        yield {"RABBITRY_BROKER": server.url, "RABBITRY_MANAGEMENT": server.management_url}
        return
    with commands.service("broker", "--port", "0", "--memory", "--management-port", "0") as service:
        found = service.wait_for(r"ready amqp://(\S+)/ (http://\S+/)")
        yield {"RABBITRY_BROKER": f"amqp://guest:guest@{found[1]}/", "RABBITRY_MANAGEMENT": found[2]}


async def test_each_object_is_listed(broker: dict[str, str]) -> None:
    async with rabbitry.connect(broker["RABBITRY_BROKER"], name="a lister") as connection:
        channel = await connection.channel(prefetch=7)
        await channel.declare_exchange("listed_exchange", "topic", durable=True)
        await channel.declare_queue("[red]listed", exclusive=True)
        await channel.bind_queue("[red]listed", "listed_exchange", "a.#")
        async with channel.consume("[red]listed"):

            def listed() -> dict[str, list[dict[str, object]]]:
                """Each listing as JSON; statistics come to RabbitMQ's database after a while."""
                found = {}
                for word in _WORDS:
                    done = commands.run(word, "--json", more=broker)
                    assert done.returncode == 0, done.stderr
                    found[word] = [json.loads(line) for line in done.stdout.splitlines()]
                return found if all(found.values()) else {}

            found = await eventually(listed, "something in every listing", within=180)
            assert [queue["name"] for queue in found["queues"]] == ["[red]listed"]
            assert "listed_exchange" in [exchange["name"] for exchange in found["exchanges"]]
            assert ("listed_exchange", "a.#") in [(one["source"], one["routing_key"]) for one in found["bindings"]]
            assert [consumer["prefetch_count"] for consumer in found["consumers"]] == [7]
            for word in _WORDS:
                done = commands.run(word, more=broker)
                assert done.returncode == 0
                lines = done.stdout.splitlines()
                assert len(lines) == 2 + len(found[word]), done.stdout  # headings, a rule, the rows
            assert "[red]listed" in commands.run("queues", more=broker).stdout
            with commands.service("queues", "--watch", "--json", more=broker) as watch:
                watch.wait_for(r"listed[\s\S]*listed")
                watch.process.terminate()
                assert watch.process.wait(90) == 0
                assert "Traceback" not in watch.output


def test_a_broker_without_a_management_api_is_named(broker: dict[str, str]) -> None:
    done = commands.run("queues", more=broker | {"RABBITRY_MANAGEMENT": "http://127.0.0.1:1"})
    assert done.returncode == 3
    assert re.fullmatch(r"rabbitry: no management API at http://127\.0\.0\.1:1\S*: .*\n", done.stderr)
    done = commands.run("queues", more=broker | {"RABBITRY_BROKER": "amqp://guest:wrong@127.0.0.1/"})
    assert done.returncode == 3
    assert "refused the login" in done.stderr
    assert "wrong" not in done.stderr
    for url in ("x", "http://[::1"):
        assert commands.run("queues", "--management", url, more=broker).returncode == 2


async def test_only_the_named_virtual_host_is_listed(broker: dict[str, str]) -> None:
    url, api = broker["RABBITRY_BROKER"], broker["RABBITRY_MANAGEMENT"]
    async with httpx.AsyncClient(base_url=api, auth=("guest", "guest"), timeout=60) as client:
        for name in ("a%20b", "empty"):
            (await client.put(f"/api/vhosts/{name}")).raise_for_status()
            (await client.put(f"/api/permissions/{name}/guest", json=_ALL)).raise_for_status()
    named = broker | {"RABBITRY_BROKER": f"{url}a%20b"}
    async with rabbitry.connect(named["RABBITRY_BROKER"]) as connection, rabbitry.connect(url) as other:
        await (await connection.channel()).declare_queue("inside", exclusive=True)
        await (await other.channel()).declare_queue("outside", exclusive=True)

        def listed(word: str, environment: dict[str, str]) -> list[dict[str, object]]:
            done = commands.run(word, "--json", more=environment)
            assert done.returncode == 0, done.stderr
            return [json.loads(line) for line in done.stdout.splitlines()]

        def both() -> bool:
            return {"inside", "outside"} <= {queue["name"] for queue in listed("queues", broker)}

        await eventually(both, "both queues", within=180)
        assert [queue["name"] for queue in listed("queues", named)] == ["inside"]
        for word in _OF_EACH_PATH:
            assert {item.get("vhost", "a b") for item in listed(word, named)} <= {"a b"}
            missing = commands.run(word, "--json", more=broker | {"RABBITRY_BROKER": f"{url}nope"})
            assert missing.returncode == 3
            assert missing.stderr.startswith("rabbitry: no virtual host 'nope'")
            assert missing.stdout == ""


def test_an_empty_list_is_reported(broker: dict[str, str]) -> None:
    with httpx.Client(base_url=broker["RABBITRY_MANAGEMENT"], auth=("guest", "guest"), timeout=60) as client:
        client.put("/api/vhosts/empty").raise_for_status()
        client.put("/api/permissions/empty/guest", json=_ALL).raise_for_status()
    empty = broker | {"RABBITRY_BROKER": f"{broker['RABBITRY_BROKER']}empty"}
    for word in _OF_EACH_PATH:
        done = commands.run(word, more=empty)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", f"rabbitry: no {word}\n")
    done = commands.run("queues", "--json", more=empty)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
