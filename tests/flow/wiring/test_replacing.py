"""Queues and exchanges are replaced with all their messages, also if each step is interrupted and done again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.apps.management import open_client
from rabbitry.cli._sight import ManagementSight
from rabbitry.flow.wiring import moving, pausing, replacer, replacing, topology
from rabbitry.flow.wiring.moving import BATCH, MOST_CAUGHT, NotMoved, catch, ready
from rabbitry.flow.wiring.replacing import Replacement, Sight, Step, shadow
from rabbitry.flow.wiring.retries import retry_queue
from tests.flow._running import counts, eventually_holds, gathered, put
from tests.support.management import Api, broker_and_management
from tests.support.ports import free_port
from tests.support.waiting import eventually, eventually_awaited

_ACTIONS: Final = (
    "pause", "wait", "shadow", "move-out", "rebind-out", "swap", "move-back", "rebind-back", "remove", "resume"
)  # fmt: skip


class Killed(Exception):
    """The end of a run, at a step."""


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def brokers(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


@pytest.fixture(autouse=True)
def figures_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ's figures are gathered each second here, and not each five."""
    monkeypatch.setattr(replacer, "STALE", 3.0)


@contextlib.asynccontextmanager
async def _seeing(urls: tuple[str, str]) -> AsyncIterator[tuple[Connection, Sight]]:
    url, management = urls
    async with rabbitry.connect(url, recover=False) as connection:
        login = connection.url
        async with open_client(management, login) as client:
            yield connection, ManagementSight(client, login.virtual_host)


async def _plan(urls: tuple[str, str], app: rabbitry.App) -> list[Replacement]:
    async with _seeing(urls) as (connection, sight):
        return await replacing.plan(connection, app.spec(), sight)


async def _apply(urls: tuple[str, str], app: rabbitry.App, kill_at: str = "", *, wait: float = 60) -> list[str]:
    """Carry out all that is to do, or end at a step; returns the actions."""
    done: list[str] = []

    def report(step: Step, moved: int) -> None:
        done.append(step.action)
        if kill_at == step.action or (moved and kill_at == f"{step.action} moved"):
            raise Killed

    with contextlib.suppress(Killed):
        async with _seeing(urls) as (connection, sight), replacer.alone(connection, app.name):
            plans = await replacing.plan(connection, app.spec(), sight)
            for item in plans:
                await replacer.apply(connection, app.name, sight, item, report, wait)
    return done


async def bodies_of(url: str, queue: str, count: int) -> list[bytes]:
    """Take so many messages out of a queue."""
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        async with channel.consume(queue, no_ack=True) as deliveries, asyncio.timeout(100):
            return [(await anext(deliveries)).body for _ in range(count)]


def _app(name: str, handled: Counter[str] | None = None, **options: Any) -> rabbitry.App:
    """Return an app whose stage has these options."""
    app = rabbitry.App(name)

    @app.stage("in", then="out", **options)
    async def work(text: str) -> str:
        if handled is not None:
            handled[text] += 1
        return text

    app.output("out", queue=f"{name}.out")
    return app


async def test_nothing_is_lost_if_each_step_is_interrupted(brokers: tuple[str, str]) -> None:
    url = brokers[0]
    handled: Counter[str] = Counter()
    old, new = _app("replaced", handled), _app("replaced", priorities=3)
    published: list[str] = []
    stop = asyncio.Event()

    async def publish() -> None:
        async with old.publisher(url) as publisher:
            while not stop.is_set():
                for _ in range(20):
                    text = str(len(published))
                    await publisher.send(text, key="in")
                    published.append(text)
                await asyncio.sleep(0.05)

    async with old.worker(url, connect_attempts=1):
        publishing = asyncio.create_task(publish())
        await eventually(lambda: handled, "a message is handled")
        plan = (await _plan(brokers, new))[0]
        assert [step.action for step in plan.steps] == list(_ACTIONS)
        for action in _ACTIONS:
            kills = [action, f"{action} moved"] if action in ("move-out", "move-back") else [action]
            for kill in kills:
                assert action in await _apply(brokers, new, kill), kill
        assert await _apply(brokers, new) == ["resume"]
        assert await _plan(brokers, new) == []
        stop.set()
        await publishing
        came = await gathered(url, ["replaced.out"], set(published), within=120)
    assert set(came["replaced.out"]) == set(published)
    async with rabbitry.connect(url) as connection:
        assert [found for found in await topology.check(connection, new.spec()) if found.is_different] == []
        assert await pausing.paused(connection, "replaced", "work") is None
    assert await counts(url, [shadow("replaced.work")]) == {shadow("replaced.work"): -1}


async def test_messages_keep_order_properties_and_bindings_of_others(brokers: tuple[str, str]) -> None:
    url = brokers[0]
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await topology.declare(connection, _app("ordered").spec())
        await channel.declare_exchange("others", "topic", durable=True)
        await channel.bind_queue("ordered.work", "others", "#.in", arguments={"why": "theirs"})
        total = BATCH + 20
        for number in range(total):
            properties = Properties(message_id=f"id{number}", headers={"CC": ["ordered.out"]})
            await channel.send(str(number).encode(), exchange="others", routing_key="x.in", properties=properties)
        await channel.wait_for_confirms()
    new = _app("ordered", queue_arguments={"x-max-length": 10_000})
    plan = (await _plan(brokers, new))[0]
    assert [step.messages for step in plan.steps if step.action.startswith("move-")] == [total, total]
    await _apply(brokers, new)
    async with rabbitry.connect(url) as connection, await connection.channel(prefetch=0) as channel:
        await channel.publish(b"last", exchange="others", routing_key="y.in")
        async with channel.consume("ordered.work") as deliveries:
            came = [await anext(deliveries) for _ in range(total + 1)]
            assert [one.body for one in came] == [*(str(number).encode() for number in range(total)), b"last"]
            assert came[7].properties.message_id == "id7"
            assert (came[7].properties.headers or {})["x-rabbitry-routing-key"] == "x.in"
            for one in came:
                one.ack()
    _, bindings = Api(brokers[1])("GET", "/api/queues/%2F/ordered.work/bindings")
    found = {(one["source"], one["routing_key"], str(one["arguments"])) for one in bindings if one["source"]}
    assert found == {("ordered", "in", "{}"), ("others", "#.in", "{'why': 'theirs'}")}


async def test_what_waits_in_a_retry_queue_comes_back_to_its_stage(brokers: tuple[str, str]) -> None:
    url, app = brokers[0], _app("waiting")
    name = retry_queue("waiting", "1s")
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        waiting: dict[str, int | str] = {"x-message-ttl": 3_600_000, "x-dead-letter-exchange": ""}
        await channel.declare_exchange(name, "fanout", durable=True)
        await channel.declare_queue(name, durable=True, arguments=waiting)
        await channel.bind_queue(name, name)
        await topology.declare(connection, app.spec())
        await channel.publish(b"again", exchange=name, routing_key="waiting.work")
    await _apply(brokers, app)
    assert await bodies_of(url, "waiting.work", 1) == [b"again"]


async def test_nothing_is_lost_that_comes_when_a_quorum_queue_is_deleted(
    brokers: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = brokers[0]
    app = rabbitry.App("hit", queue_type="quorum")
    app.output("a", queue="hit.out")
    confirmed: list[str] = []
    before: list[str] = []
    is_over = asyncio.Event()
    delete_queue = Channel.delete_queue

    async def noting(channel: Channel, name: str, **options: Any) -> int:
        if name == "hit.out":
            before[:] = confirmed
        return await delete_queue(channel, name, **options)

    async def publish(connection: Connection, number: int) -> None:
        async with await connection.channel() as channel:
            while not is_over.is_set():
                text = f"{number}.{len(confirmed)}"
                with contextlib.suppress(rabbitry.PublishError):  # in the moment without the queue
                    await channel.publish(text.encode(), routing_key="hit.out")
                    confirmed.append(text)
                await asyncio.sleep(0.002)

    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_queue("hit.out", durable=True, arguments={"x-queue-type": "quorum"})
    async with rabbitry.connect(url) as connection:
        publishing = [asyncio.create_task(publish(connection, number)) for number in range(8)]
        await eventually(lambda: confirmed, "a message is confirmed")
        monkeypatch.setattr(Channel, "delete_queue", noting)
        try:
            assert "swap" in await _apply(brokers, app, "rebind-back")
        finally:
            monkeypatch.undo()
            is_over.set()
            await asyncio.gather(*publishing)
        is_rabbitmq = not str(connection.server_properties["platform"]).startswith("Rabbitry")
    await _apply(brokers, app)
    assert await _plan(brokers, app) == []
    # RabbitMQ confirms some messages while it deletes their queue, and delivers them to nobody.
    wanted = set(before if is_rabbitmq else confirmed)
    assert wanted
    came = await gathered(url, ["hit.out"], wanted)
    assert set(came["hit.out"]) >= wanted


async def test_a_quorum_queue_with_many_messages_is_not_deleted(brokers: tuple[str, str]) -> None:
    async with rabbitry.connect(brokers[0]) as connection, await connection.channel() as channel:
        for name in ("many", "kept"):
            await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        numbers = [str(number) for number in range(MOST_CAUGHT + 1)]
        for receipt in [await channel.send(number.encode(), routing_key="many") for number in numbers]:
            await receipt

        async def delete() -> bool:
            await channel.delete_queue("many")
            return True

        assert not await catch(connection, "many", "kept", delete, is_shared=False)
        delivery = await channel.get("many")
        assert delivery is not None
        delivery.ack()
        await eventually_holds(brokers[0], "many", MOST_CAUGHT)
        assert await catch(connection, "many", "kept", delete, is_shared=False)
        assert await ready(connection, "many") is None
    came = await gathered(brokers[0], ["kept"], {*numbers} - {delivery.body.decode()})
    assert came["kept"].total() == MOST_CAUGHT


@pytest.mark.parametrize("is_answered", [True, False])
async def test_what_a_deleted_queue_had_survives_the_loss_of_the_connection(
    brokers: tuple[str, str], is_answered: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, unreachable = brokers[0], iter([f"amqp://127.0.0.1:{free_port()}/"])
    monkeypatch.setattr(moving, "connect", lambda given, **more: rabbitry.connect(next(unreachable, given), **more))
    held, kept = f"held.{is_answered}", f"kept.{is_answered}"
    async with rabbitry.connect(url) as other, await other.channel() as channel:
        for name in (held, kept):
            await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(5):
            await channel.publish(f"{number}".encode(), routing_key=held)
        connection = await rabbitry.connect(url, recover=False)

        async def delete() -> bool:
            async def is_caught() -> bool:
                return await ready(other, held) == 0

            await eventually_awaited(is_caught, "all to be delivered")
            await channel.delete_queue(held)
            await connection.close()
            if not is_answered:
                raise rabbitry.ConnectionClosed(0, "lost before the answer")
            return True

        with contextlib.suppress(rabbitry.ConnectionClosed):
            await catch(connection, held, kept, delete, is_shared=False)
    assert caplog.text.count("5 messages of the deleted queue are held here alone") == 2, "the first try fails"
    came = await gathered(url, [kept], {f"{number}" for number in range(5)})
    assert came[kept].total() == 5


async def test_a_second_run_waits_for_the_first_and_says_so(
    brokers: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacer, "_LOCK_PATIENCE", 0.0)
    async with rabbitry.connect(brokers[0]) as first, rabbitry.connect(brokers[0]) as second:
        async with replacer.alone(first, "both"):
            with pytest.raises(NotMoved, match="another `rabbitry topology apply` of app 'both' is at work"):
                async with replacer.alone(second, "both"):
                    raise AssertionError
        async with replacer.alone(second, "both"):
            pass


async def test_an_exchange_gets_another_type_with_its_bindings(brokers: tuple[str, str]) -> None:
    url = brokers[0]
    app = rabbitry.App("retyped", exchange_type="topic")
    app.output("a.*", queue="retyped.out")
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("retyped", "direct", durable=True)
        await channel.declare_queue("theirs", durable=True)
        await channel.bind_queue("theirs", "retyped", "b.c")
    for kill in ("shadow", "swap", "remove", ""):
        await _apply(brokers, app, kill)
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await topology.declare(connection, app.spec(), strict=True)
        await channel.publish(b"1", exchange="retyped", routing_key="b.c")
        await channel.publish(b"2", exchange="retyped", routing_key="a.x")
    assert await counts(url, ["theirs", "retyped.out"]) == {"theirs": 1, "retyped.out": 1}
    assert await _plan(brokers, app) == []


async def test_a_queue_that_others_consume_is_left_alone(brokers: tuple[str, str]) -> None:
    url = brokers[0]
    app = rabbitry.App("busy")
    app.output("a", queue="busy.out", queue_arguments={"x-max-length": 1})
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_queue("busy.out", durable=True)
        async with channel.consume("busy.out") as deliveries:
            with pytest.raises(NotMoved, match=r"still has 1 consumers.*stop the programs"):
                await _apply(brokers, app, wait=0.1)
            await channel.publish(b"held", routing_key="busy.out")
            held = await anext(deliveries)
            await deliveries.cancel(give_back=False)
            with pytest.raises(NotMoved, match="0 consumers and 1 messages in hand"):
                await _apply_late(brokers, app)
            held.ack()
        assert await counts(url, ["busy.out", shadow("busy.out")]) == {"busy.out": 0, shadow("busy.out"): -1}
        for text in (b"1", b"2"):
            await put(url, "busy.out", text)
    assert (await _plan(brokers, app))[
        0
    ].problem == "it has 2 messages, and x-max-length would be 1: some would be lost"
    with pytest.raises(NotMoved, match="some would be lost"):
        await _apply(brokers, app)


async def _apply_late(brokers: tuple[str, str], app: rabbitry.App) -> None:
    """Carry out the plan once the figures show the message in hand."""
    api = Api(brokers[1])

    async def is_shown() -> bool:
        return bool(api("GET", "/api/queues/%2F/busy.out")[1].get("messages_unacknowledged"))

    await eventually_awaited(is_shown, "the message in hand")
    await _apply(brokers, app, wait=0.1)


async def test_a_policy_that_would_drop_messages_of_the_shadow_ends_it(brokers: tuple[str, str]) -> None:
    url, api = brokers[0], Api(brokers[1])
    async with rabbitry.connect(url) as connection:
        await topology.declare(connection, _app("ruled").spec())
    policy = {"pattern": "^ruled[.]work[.]moving$", "definition": {"max-length": 1}, "apply-to": "queues"}
    assert api("PUT", "/api/policies/%2F/short", policy)[0] in (201, 204)
    with pytest.raises(NotMoved, match=r"a policy sets max-length for queue 'ruled.work.moving'"):
        await _apply(brokers, _app("ruled", priorities=1))
    assert (await counts(url, [shadow("ruled.work")])) == {shadow("ruled.work"): -1}
    assert api("DELETE", "/api/policies/%2F/short")[0] == 204
    await _apply(brokers, _app("ruled", priorities=1))
    assert await _plan(brokers, _app("ruled", priorities=1)) == []
