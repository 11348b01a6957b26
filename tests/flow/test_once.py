"""Idempotent stages under duplicates, failures and kills, and unique messages."""

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.exceptions import PublishReturned
from rabbitry.flow import once
from rabbitry.flow._outlet import Outlet
from rabbitry.flow._stores.once_claim import Claim
from rabbitry.flow._stores.once_sql import SqlStore
from rabbitry.flow.context import Context
from rabbitry.flow.message import Publication, Role
from rabbitry.flow.wiring.dead_letters import replay
from rabbitry.flow.worker import _settlement
from rabbitry.testing import harness
from tests.flow._running import bodies, dead_of, eventually_dead, eventually_holds, put
from tests.flow.worker._once_victim import make_app
from tests.support import commands
from tests.support.launcher import Launched, launch
from tests.support.ports import free_port
from tests.support.waiting import eventually


async def test_a_message_is_handled_once_by_its_id_and_by_a_key(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("once", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("id", idempotent=True, then="out")
    async def by_id(text: str) -> str:
        calls.append(text)
        return text

    @app.stage("key", idempotent=lambda order: order["number"], then="out", attempts=2, delays=[0])
    def by_key(order: dict[str, int]) -> list[str]:
        calls.append(f"order {order['number']}")
        if calls.count("order 7") == 1 and order["number"] == 7:
            raise ValueError("the first attempt fails")
        return [f"order {order['number']}"]

    app.output("out", queue="once.out")
    async with app.worker(broker_url, connect_attempts=1) as worker, app.publisher(broker_url) as publisher:
        for _ in range(3):
            await put(broker_url, "once.by_id", b"a", Properties(message_id="m1"))
        await put(broker_url, "once.by_id", b"b", Properties(message_id="m2"))
        for _ in range(2):
            await put(broker_url, "once.by_id", b"no id")
        for number in (7, 7, 8):
            await publisher.publish({"number": number}, key="key")
        counts = worker._engine.counting.stages
        await eventually(lambda: counts["by_id"].not_done["skipped"] == 2, "the copies are skipped")
        await eventually(lambda: counts["by_key"].not_done["skipped"] == 1, "the second order is skipped")
        await eventually(lambda: counts["by_id"].counters["to.out"] == 4, "the others lead to one message each")
        assert not [name for name in counts["by_id"].counters if name.startswith("to.once")], "notes are no results"
        await eventually_holds(broker_url, "once.out", 6)
    assert Counter(await bodies(broker_url, "once.out")) == {
        b"a": 1, b"b": 1, b"no id": 2, b"order 7": 1, b"order 8": 1
    }  # fmt: skip
    assert Counter(calls) == {"a": 1, "b": 1, "no id": 2, "order 7": 2, "order 8": 1}


def _victim(arguments: list[str]) -> Launched:
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        return launch(arguments, commands.environment(), output, output, module="tests.flow.worker._once_victim")


async def _kill(arguments: list[str]) -> None:
    process = _victim(arguments)
    try:
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait, 120)
    finally:
        process.kill()
        process.wait()
    assert code == -signal.SIGKILL, f"exit code {code}"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "kills"),
    [("single", {"handled": 4, "sent": 4, "confirmed": 4}), ("batch", {"handled": 2, "confirmed": 4})],
    ids=["single", "batch"],
)
async def test_no_message_is_lost_and_none_repeated_but_by_kills(
    broker_url: str, tmp_path: Path, kind: str, kills: dict[str, int]
) -> None:
    store, log = f"sqlite:///{tmp_path}/once.sqlite3", tmp_path / "log"
    app = make_app(store, str(log), kind)
    wanted = [str(number) for number in range(15)]
    async with app.publisher(broker_url):  # declares the queues
        for number in wanted * 2:
            await put(broker_url, "once.charge", number.encode(), Properties(message_id=f"m{number}"))
    for step, times in kills.items():
        await _kill([broker_url, store, str(log), kind, step, str(times)])
    async with app.worker(broker_url, connect_attempts=1) as worker:
        counted = worker._engine.counting.stages["charge"].counters
        await eventually_holds(broker_url, "once.bills", len(wanted), at_least=True)
        for queue in ("once.charge", "once.suspects.charge", "once.retry.1s", "once.retry.5s"):
            await eventually_holds(broker_url, queue, 0)
        await eventually(lambda: not worker._engine.counting.stages["charge"].in_hand, "all to be settled")
    assert "dead" not in counted
    handled = Counter(log.read_text().split())
    assert set(handled) == set(wanted)
    # Five run at once, or two batches of three; each kill may take those with it whose results were not confirmed.
    assert sum(handled.values()) - len(wanted) <= 6 * len(kills)
    assert {body.decode() for body in await bodies(broker_url, "once.bills")} == set(wanted)


async def test_a_unique_message_is_published_once(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("unique", store=f"sqlite:///{tmp_path}/once.sqlite3")
    app.output("order", queue="unique.orders")
    app.output("lost")
    async with app.publisher(broker_url) as publisher:
        first = await publisher.publish("tea", key="order", unique="17")
        found = await asyncio.gather(
            *(publisher.publish("tea", key="order", unique=unique) for unique in ("17", "18", "18", "18"))
        )
        assert found[0] == first
        assert len(set(found)) == 2
        for _ in range(2):  # what was not published is not done
            with pytest.raises(PublishReturned):
                await publisher.publish("tea", key="lost", unique="17")
        with pytest.raises(rabbitry.UsageError, match="unique=''"):
            await publisher.publish("tea", key="order", unique="")
    assert await app.publish("tea", key="order", unique="17", url=broker_url) == first
    with app.publisher_blocking(broker_url) as blocking:
        assert blocking.publish("tea", key="order", unique="17") == first
    await eventually_holds(broker_url, "unique.orders", 2)


async def test_a_unique_message_is_sent_once(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("unique", store=f"sqlite:///{tmp_path}/once.sqlite3")
    app.output("order", queue="unique.orders")
    app.output("lost")
    async with app.publisher(broker_url) as publisher:
        receipts = [await publisher.send("tea", key="order", unique=unique) for unique in ("17", "18", "17")]
        for receipt in receipts:
            await receipt
        assert receipts[0].message_id == receipts[2].message_id != receipts[1].message_id
        for _ in range(2):  # what was not published is not done
            with pytest.raises(PublishReturned):
                await (await publisher.send("tea", key="lost", unique="17"))
        last = await publisher.send("tea", key="order", unique="19")
    with app.publisher_blocking(broker_url) as blocking:
        again = blocking.send("tea", key="order", unique="19")
        again.result()
        assert again.message_id == last.message_id
    await eventually_holds(broker_url, "unique.orders", 3)


async def test_a_handler_publishes_a_unique_message_once_over_its_attempts(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("unique", store=f"sqlite:///{tmp_path}/once.sqlite3")
    ids: list[str] = []

    @app.stage("order", attempts=3, delays=[0])
    async def order(text: str, context: Context) -> None:
        ids.append(await context.publish(text, key="mail", unique=text, expires=3600))
        if len(ids) == 1:
            raise ValueError("the first attempt fails")

    @app.stage("slow", attempts=3, delays=[0])
    def slow(text: str, context: Context) -> None:
        ids.append(context.publish_blocking(text, key="mail", unique=text))

    app.output("mail", queue="unique.mails")
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("tea", key="order")
        await eventually(lambda: len(ids) == 2, "two attempts")
        await app.publish("tea", key="slow")
        await eventually(lambda: len(ids) == 3, "another handler")
        ids.append(await app.publish("tea", key="mail", unique="tea"))
        ids.append(await asyncio.to_thread(app.publish_blocking, "tea", key="mail", unique="tea"))
    assert len(set(ids)) == 1
    await eventually_holds(broker_url, "unique.mails", 1)


async def test_what_a_killed_publisher_left_is_published_with_its_id(embedded_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("unique", store=f"sqlite:///{tmp_path}/once.sqlite3")
    app.output("order", queue="unique.orders")
    store = SqlStore(f"sqlite:///{tmp_path}/once.sqlite3", "unique unique", 60)
    store.claim("order 17", "its-id", "run", 0.5)
    async with app.publisher(embedded_url) as publisher:
        assert await publisher.publish("tea", key="order", unique="17") == "its-id"
    assert store.claim("order 17", "x", "y", 1).state == "done"
    store.close()
    await eventually_holds(embedded_url, "unique.orders", 1)


async def test_a_message_whose_result_was_not_confirmed_is_handled_again(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settlement, "PAUSE", 0.05)
    app = rabbitry.App("unconfirmed", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("order", then="bill", idempotent=True)
    async def charge(order: str) -> str:
        calls.append(order)
        return f"a bill for {order}"

    app.output("bill", queue="unconfirmed.bills")
    send = Outlet.send

    async def fail_once(outlet: Outlet, message: Publication) -> "asyncio.Future[None]":
        if message.role is Role.RESULT and len(calls) == 1:
            raise OSError("no confirm")
        return await send(outlet, message)

    monkeypatch.setattr(Outlet, "send", fail_once)
    async with app.worker(broker_url, connect_attempts=1) as worker, app.publisher(broker_url) as publisher:
        await publisher.publish("tea", key="order")
        await eventually_holds(broker_url, "unconfirmed.bills", 1)
        stage = worker._engine.counting.stages["charge"]
        await eventually(lambda: not stage.in_hand, "all to be settled")
    assert calls == ["tea", "tea"]


async def test_a_note_that_the_broker_refuses_does_not_repeat_its_message(
    embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("unnoted", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("order", idempotent=True)
    async def charge(order: str) -> None:
        calls.append(order)

    send = Outlet.send

    async def fail(outlet: Outlet, message: Publication) -> "asyncio.Future[None]":
        if message.role is Role.NOTE:
            raise OSError("no confirm")
        return await send(outlet, message)

    monkeypatch.setattr(Outlet, "send", fail)
    async with app.worker(embedded_url, connect_attempts=1) as worker, app.publisher(embedded_url) as publisher:
        await publisher.publish("tea", key="order")
        stage = worker._engine.counting.stages["charge"]
        await eventually(lambda: calls and not stage.in_hand, "all to be settled")
    await eventually_holds(embedded_url, "unnoted.charge", 0)
    assert calls == ["tea"]
    assert "stage 'charge': the note that a message is done is dropped, so that a copy may be handled" in caplog.text


async def test_a_copy_waits_for_a_note_that_comes_after_the_lease(
    embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_MARGIN", -601.0)  # each lease is over when it begins, before the note is read
    app = rabbitry.App("backlog", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("order", idempotent=lambda order: order, concurrency=1, time_limit=600)
    async def charge(order: str) -> None:
        calls.append(order)

    async with app.publisher(embedded_url) as publisher:
        for _ in range(2):  # the note of the first comes behind the second
            await publisher.publish("tea", key="order")
    async with app.worker(embedded_url, connect_attempts=1) as worker:
        counts = worker._engine.counting.stages["charge"]
        await eventually(lambda: counts.not_done["skipped"] == 1, "the copy is skipped")
    assert calls == ["tea"]


async def test_a_replayed_message_is_no_copy_of_the_one_that_failed(embedded_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("replayed", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("order", then="bill", idempotent=True, attempts=1)
    async def charge(order: str) -> object:
        calls.append(order)
        return object() if len(calls) == 1 else order  # an object can't be encoded: the handler had returned

    app.output("bill", queue="replayed.bills")
    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        await publisher.publish("tea", key="order")
        await eventually_dead(embedded_url, app, 1)
        async with rabbitry.connect(embedded_url) as connection:
            assert await replay(connection, "replayed", lambda letter: True) == (1, [])
        await eventually_holds(embedded_url, "replayed.bills", 1)
    assert calls == ["tea", "tea"]


async def test_messages_without_a_key_are_all_handled() -> None:
    app = rabbitry.App("keyless")

    @app.stage("order", then="bill", idempotent=lambda order: order.get("number"))
    async def charge(order: dict[str, int]) -> str:
        return f"a bill for {order['price']}"

    app.output("bill")
    async with harness(app) as h:
        for price in (1, 2):
            await h.publish({"price": price}, key="order")
        await h.idle()
        assert sorted(h.all_published("bill")) == ["a bill for 1", "a bill for 2"]


async def test_a_publisher_that_is_cancelled_while_it_waits_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = rabbitry.App("cancelled", store=f"sqlite:///{tmp_path}/once.sqlite3")
    unique, claim = once.Unique(app.spec()), SqlStore.claim
    entered, go_on = threading.Event(), threading.Event()

    def slow(store: SqlStore, *args: Any, **named: Any) -> Any:
        entered.set()
        go_on.wait()
        return claim(store, *args, **named)

    async def send(_identity: str) -> None:
        pytest.fail("it was cancelled before")

    with monkeypatch.context() as patched:
        patched.setattr(SqlStore, "claim", slow)
        task = asyncio.create_task(unique.publish("17", "order", send))
        try:
            await eventually(entered.is_set, "the claim")
            task.cancel()
        finally:
            go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    await unique.close()
    store = SqlStore(f"sqlite:///{tmp_path}/once.sqlite3", "cancelled unique", 60)
    assert store.claim("order 17", "x", "y", 1) == Claim("mine", "x")
    store.close()


async def test_a_message_that_could_not_be_sent_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = rabbitry.App("unsent", store=f"sqlite:///{tmp_path}/once.sqlite3")
    unique, claim = once.Unique(app.spec()), SqlStore.claim
    sent: list[str] = []

    async def send(identity: str) -> None:
        sent.append(identity)

    async def fail(_identity: str) -> None:
        raise LookupError("no such codec")

    def lost(store: SqlStore, *args: Any, **named: Any) -> Any:
        claim(store, *args, **named)
        raise rabbitry.StoreError("the answer was lost")

    async with asyncio.timeout(once.LEASE / 2):
        with pytest.raises(LookupError):
            await unique.publish("17", "order", fail)
        with monkeypatch.context() as patched:
            patched.setattr(SqlStore, "claim", lost)
            with pytest.raises(rabbitry.StoreError):
                await unique.publish("17", "order", send)
        assert await unique.publish("17", "order", send) == sent[0]
    await unique.close()
    assert len(sent) == 1


async def test_handlers_that_yield_are_called_once(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("once", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[str] = []

    @app.stage("lines", idempotent=lambda text: text or None, then="out", attempts=2, delays=[0])
    async def lines(text: str) -> AsyncIterator[str]:
        calls.append(text)
        for line in text.split():
            yield line
        if calls.count("a b") == 1:  # "words" may have been called meanwhile
            raise ValueError("the first attempt fails")

    @app.stage("words", idempotent=lambda text: text, then="out")
    def words(text: str) -> Iterator[str]:
        calls.append(text)
        yield text

    app.output("out", queue="once.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        for key, text in (("lines", "a b"), ("words", "c")):
            await publisher.publish(text, key=key)
        await eventually(lambda: len(calls) == 3, "the first attempt of one fails")
        for key, text in (("lines", "a b"), ("words", "c"), ("lines", ""), ("lines", "")):
            await publisher.publish(text, key=key)
        await eventually(lambda: len(calls) == 5, "those without a key are handled each time")
        for stage in ("lines", "words"):
            await eventually_holds(broker_url, f"once.{stage}", 0)
            await eventually_holds(broker_url, "once.retry.1s", 0)
    assert Counter(calls) == {"a b": 2, "c": 1, "": 2}
    came = Counter(await bodies(broker_url, "once.out"))
    assert came[b"c"] == 1
    assert {came[b"a"], came[b"b"]} <= {1, 2}, "an attempt that fails may leave what it had yielded"


async def test_without_its_store_nothing_is_handled_or_published(embedded_url: str) -> None:
    app = rabbitry.App("away", store=f"postgresql://ann:secret@127.0.0.1:{free_port()}/shop")
    app.output("order", queue="away.orders")
    async with app.publisher(embedded_url) as publisher:
        with pytest.raises(rabbitry.StoreError, match="does not answer"):
            await publisher.publish("tea", key="order", unique="17")
    await eventually_holds(embedded_url, "away.orders", 0)


async def test_a_harness_skips_copies() -> None:
    app = rabbitry.App("once")

    @app.stage("order", then="bill", idempotent=lambda order: order)
    async def charge(order: str) -> str:
        return f"a bill for {order}"

    app.output("bill")
    async with harness(app) as h:
        for order in ("tea", "tea", "milk"):
            await h.publish(order, key="order")
            await h.idle()
        assert await h.published("order") == "tea"
        assert h.all_published("bill") == ["a bill for tea", "a bill for milk"]


processed = rabbitry.App("processed")


@processed.stage("order", then="bill", idempotent=True, processes=True, concurrency=1)
def charge_in_process(order: str) -> str:
    return order


processed.output("bill")


async def test_a_handler_in_a_process_is_called_once() -> None:
    async with harness(processed) as h:
        for _ in range(2):
            await put(h.url, "processed.charge_in_process", b"tea", Properties(message_id="m1"))
            await h.idle()
        assert h.all_published("bill") == ["tea"]


class _Order(msgspec.Struct):
    number: int


class _Bill(msgspec.Struct):
    total: int


@pytest.mark.parametrize("yields", [False, True])
async def test_unknown_fields_go_on_with_the_results(broker_url: str, tmp_path: Path, *, yields: bool) -> None:
    app = rabbitry.App("keeping", store=f"sqlite:///{tmp_path}/once.sqlite3")
    stage = app.stage("order", name="take", then="out", idempotent=lambda order: order.number, keep_unknown=True)

    async def returning(order: _Order) -> _Bill:
        return _Bill(order.number + 1)

    def yielding(order: _Order) -> Iterator[_Bill]:
        yield _Bill(order.number + 1)

    stage(yielding if yields else returning)
    app.output("out", queue="keeping.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        for _ in range(2):
            await publisher.publish({"number": 7, "more": 1}, key="order")
        await publisher.publish({"number": 8, "other": [2]}, key="order")
        await eventually_holds(broker_url, "keeping.out", 2)
        for queue in ("keeping.take", "keeping.retry.1s"):
            await eventually_holds(broker_url, queue, 0)
    found = [json.loads(body) for body in await bodies(broker_url, "keeping.out")]
    assert sorted(found, key=lambda bill: bill["total"]) == [{"total": 8, "more": 1}, {"total": 9, "other": [2]}]


@pytest.mark.timeout(200)
async def test_a_job_is_split_and_joined_once_for_each_key(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("splitting", store=f"sqlite:///{tmp_path}/store.sqlite3")
    cut: list[str] = []
    joined: list[list[str]] = []

    @app.stage("text", then="word", idempotent=lambda text: f"text {text}", attempts=2, delays=[0])
    async def split(text: str) -> list[str]:
        cut.append(text)
        if cut.count(text) == 1 and text == "to be":
            raise ValueError("the first attempt fails")
        return text.split()

    @app.join("word", of="split", replies=True, then="joined")
    async def join(words: list[str]) -> str:
        joined.append(words)
        return " ".join(words).upper()

    app.output("joined", queue="splitting.joined")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        for text in ("to be", ""):
            assert await publisher.call(text, key="text", timeout=120) == text.upper()
            for queue in ("splitting.split", "splitting.join"):
                await eventually_holds(broker_url, queue, 0)  # the notes came back
            with pytest.raises(rabbitry.CallFailed, match="handled before") as caught:
                await publisher.call(text, key="text", timeout=120)
            assert caught.value.reason == "handled"
        await eventually_holds(broker_url, "splitting.joined", 2)
        for queue in ("splitting.split", "splitting.join"):
            await eventually_holds(broker_url, queue, 0)
    assert cut == ["to be", "to be", ""]
    assert joined == [["to", "be"], []], "neither a note nor a skipped message is a job without parts"
    assert await dead_of(broker_url, app) == []


@pytest.mark.timeout(200)
async def test_a_repeated_call_is_refused(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("asked", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[int] = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.stage("pay", idempotent=lambda order: order, replies=True, attempts=2, delays=[0], then="paid")
    async def pay(order: int) -> str:
        calls.append(order)
        if calls.count(order) == 1 and order == 8:
            raise ValueError("the first attempt fails")
        if order == 9:
            entered.set()
            await go_on.wait()
        return f"paid {order}"

    app.output("paid", queue="asked.paid")
    async with app.worker(broker_url, connect_attempts=1) as worker, app.publisher(broker_url) as publisher:
        not_done = worker._engine.counting.stages["pay"].not_done
        assert await publisher.call(7, key="pay", timeout=120) == "paid 7"
        await eventually_holds(broker_url, "asked.pay", 0)
        with pytest.raises(rabbitry.CallFailed, match="handled before, and the answer to it is not kept") as caught:
            await publisher.call(7, key="pay", timeout=120)
        assert caught.value.reason == "handled"
        assert await publisher.call(8, key="pay", timeout=120) == "paid 8", "an attempt that failed is none"
        first = asyncio.create_task(publisher.call(9, key="pay", timeout=120))
        await entered.wait()
        second = asyncio.create_task(publisher.call(9, key="pay", timeout=120))
        await eventually(lambda: not_done["retry"] == 1, "it waits for what becomes of the first")
        go_on.set()
        assert await first == "paid 9"
        with pytest.raises(rabbitry.CallFailed, match="handled before"):
            await second
        await eventually_holds(broker_url, "asked.paid", 3)
    assert calls == [7, 8, 8, 9]


def _takes(order: str) -> None: ...


def test_wrong_options_are_refused() -> None:
    app = rabbitry.App("wrong")
    with pytest.raises(rabbitry.AppError, match="idempotent='yes': must be True, or a function of the value"):
        app.stage("order", idempotent="yes")(_takes)  # type: ignore[arg-type] # the mistake that is tested
    with pytest.raises(rabbitry.AppError, match="window=0: give positive seconds"):
        rabbitry.App("wrong", window=0)
    with pytest.raises(rabbitry.AppError, match="window='1d': give positive seconds"):
        rabbitry.App("wrong", window="1d")  # type: ignore[arg-type] # the mistake that is tested
    app.stage("order", idempotent=True, queue="order")(_takes)
    with pytest.raises(rabbitry.AppError, match="queue 'order' has the name of a key"):
        app.validate()
