"""The topology of an app: declared, compared with a broker, and exported as definitions."""

import json
import logging
from typing import Any

import pytest

import rabbitry
from rabbitry.flow.wiring import topology
from rabbitry.flow.wiring.retries import RETRY_QUEUES
from tests.flow._running import counts


def _app(**options: Any) -> rabbitry.App:
    app = rabbitry.App("shape", **options)

    @app.stage("in", queue="in_queue", then="out")
    async def handle(value: str) -> str:
        return value

    app.output("out", queue="out_queue")
    return app


async def test_check_reports_missing_and_differing_objects_and_changes_nothing(broker_url: str) -> None:
    app = _app()
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("in_queue", durable=False)
        await channel.declare_exchange("shape", "fanout", durable=True)
        findings = {finding.what: finding for finding in await topology.check(connection, app.spec())}
        assert findings["queue 'in_queue'"].is_different
        assert "durable" in findings["queue 'in_queue'"].text
        assert "type" in findings["exchange 'shape'"].text
        assert findings["queue 'out_queue'"].text == "missing"
        with pytest.raises(rabbitry.TopologyMismatch, match=r"exchange 'shape'.*queue 'in_queue'.*nothing was changed"):
            await topology.declare(connection, app.spec(), strict=True)
    assert await counts(broker_url, ["in_queue", "out_queue", "shape.dead"]) == {
        "in_queue": 0, "out_queue": -1, "shape.dead": -1,
    }  # fmt: skip


async def test_an_object_with_other_flags_is_used_with_a_warning(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = _app()
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("shape", "direct", durable=False)
        await channel.declare_queue("in_queue", durable=True, arguments={"x-max-length": 10})
        with caplog.at_level(logging.WARNING):
            await topology.declare(connection, app.spec())
        assert "exchange 'shape' exists with other flags and is used as it is" in caplog.text
        assert "queue 'in_queue' exists with other flags and is used as it is" in caplog.text
        await app.publish("x", key="in", url=broker_url)
    assert (await counts(broker_url, ["in_queue"]))["in_queue"] == 1


async def test_a_declared_topology_passes_the_check(broker_url: str) -> None:
    for options in ({}, {"queue_type": "quorum"}):
        app = _app(**options)
        async with rabbitry.connect(broker_url) as connection:
            await topology.declare(connection, app.spec(), strict=True)
            assert await topology.check(connection, app.spec()) == []
            channel = await connection.channel()
            for queue in ("in_queue", "out_queue"):
                await channel.delete_queue(queue)


def test_rabbitmq_imports_the_definitions(rabbitmq_server: Any) -> None:
    app = _app(queue_type="quorum")
    definitions = topology.derive(app.spec()).definitions("imported")
    text = json.dumps({"vhosts": [{"name": "imported"}], **definitions})
    path = rabbitmq_server.directory / "definitions.json"
    path.write_text(text)
    # What rabbitmqctl does; but that takes a second of CPU to start, each time.
    rabbitmq_server.eval(
        f'{{ok, File}} = file:read_file("{rabbitmq_server.own_view(path)}"), ok = rabbit_definitions:import_raw(File).'
    )
    listed = rabbitmq_server.eval(
        "[{binary_to_list(element(4, amqqueue:get_name(Q))), amqqueue:get_type(Q), amqqueue:is_durable(Q)}"
        ' || Q <- rabbit_amqqueue:list(<<"imported">>)].'
    )
    assert '{"in_queue", rabbit_quorum_queue, true}' in listed
    assert all(f'{{"shape.retry.{suffix}", rabbit_quorum_queue, true}}' in listed for _, suffix in RETRY_QUEUES)
    bindings = rabbitmq_server.eval(
        "[lists:join(32, [binary_to_list(element(4, Source)), binary_to_list(element(4, Queue)), binary_to_list(Key)])"
        ' || {binding, Source, Key, Queue, _} <- rabbit_binding:list(<<"imported">>)].'
    )
    assert '["shape", 32, "in_queue", 32, "in"]' in bindings
    rabbitmq_server.delete_vhost("imported")


def test_a_plain_app_declares_auto_delete_what_it_names() -> None:
    for plain in (True, False):
        app = rabbitry.App("shop", plain=plain, auto_delete=("shop", "orders"))
        app.output("order", queue="orders")
        app.output("bill", queue="bills")
        shape = topology.derive(app.spec())
        assert [exchange.name for exchange in shape.exchanges if exchange.auto_delete] == ["shop"] * plain
        assert [queue.name for queue in shape.queues if queue.auto_delete] == ["orders"] * plain
        queues = {str(item["name"]): item["auto_delete"] for item in shape.definitions()["queues"]}
        assert (queues["orders"], queues["bills"]) == (plain, False)


def test_plain_declares_with_the_defaults_of_libraries() -> None:
    shape = topology.derive(_app(plain=True).spec())
    assert shape.exchanges[0] == topology.ExchangeSpec("shape", "direct", durable=False)
    assert shape.queues[0] == topology.QueueSpec("in_queue", durable=False)
    assert shape.queues[2] == topology.QueueSpec("shape.dead", durable=True)


def test_missing_bindings_are_told_from_those_that_a_management_api_lists() -> None:
    shape = topology.derive(_app().spec())
    present = [{"source": item.exchange, "destination": item.queue, "routing_key": item.key} for item in shape.bindings]
    assert topology.missing_bindings(shape, present) == []
    assert len(topology.missing_bindings(shape, present[1:])) == 1


def test_a_queue_says_what_can_not_use_another_one() -> None:
    app = rabbitry.App("needs")

    @app.every("5m")
    @app.stage("in", rate="1/s", total_concurrency=1, single_active=True)
    async def work(tick: rabbitry.Tick) -> None: ...

    needed = {queue.name: queue.required_by for queue in topology.derive(app.spec()).queues if queue.required_by}
    assert needed == {
        "needs.work": "stage 'work' with single_active=True",
        "needs.schedule.work": "the schedule of stage 'work'",
        "needs.rate.work": "the rate of stage 'work'",
        "needs.slot.work.1": "stage 'work' with total_concurrency",
    }
