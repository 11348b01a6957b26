"""Batches of idempotent stages: each message is handled once, in whatever batch and whatever becomes of the others."""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow import _gate, _gates
from rabbitry.flow._gated_batches import GatedBatch
from rabbitry.flow._signature import Signature
from rabbitry.flow.batch import Batch, failures_of, skipped_of
from rabbitry.flow.outgoing import Outgoing
from rabbitry.testing import harness
from tests.flow._running import bodies, eventually_dead, eventually_holds, put
from tests.support.waiting import eventually


async def test_a_batch_has_the_messages_that_were_not_handled_before(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("batched", store=f"sqlite:///{tmp_path}/once.sqlite3")
    calls: list[list[str]] = []
    ids: list[str] = []

    @app.stage("in", then="out", batch=10, within=0.2, idempotent=True, attempts=2, delays=[0])
    def handle(texts: list[str], messages: list[rabbitry.Message], batch: rabbitry.Batch) -> list[Outgoing]:
        calls.append(texts)
        ids.extend(message.id for message in messages)
        assert len(batch) == len(texts) == len(messages)
        if "odd" in texts:
            batch.fail(texts.index("odd"), rabbitry.Reject("it is odd"))
        return [Outgoing(text, index=index) for index, text in enumerate(texts) if text != "odd"]

    app.output("out", queue="batched.out")
    async with app.worker(broker_url, connect_attempts=1) as worker:
        counts = worker._engine.counting.stages["handle"]
        for name in ("a", "odd", "b", "a", "b"):
            await put(broker_url, "batched.handle", name.encode(), Properties(message_id=name, correlation_id=name))
        await put(broker_url, "batched.handle", b"{}", Properties(content_type="application/json"))
        await eventually_holds(broker_url, "batched.out", 3)
        await eventually_dead(broker_url, app, 1)
        await eventually(lambda: counts.not_done["skipped"] == 2, "the copies are skipped")
        await eventually(lambda: not counts.in_hand, "all to be settled")
        assert counts.counters["to.out"] == 3
        assert not [name for name in counts.counters if name.startswith("to.batched")], "notes are no results"
    assert Counter(text for texts in calls for text in texts) == {"a": 1, "b": 1, "odd": 1, "{}": 1}
    assert len(ids) == len(set(ids)) == 4
    assert {"a", "b", "odd"} < set(ids)
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        async with channel.consume("batched.out") as deliveries:
            found = [await anext(deliveries) for _ in range(3)]
    chains = {each.body.decode(): each.properties.correlation_id for each in found}
    assert (chains["a"], chains["b"]) == ("a", "b"), "each result follows from its own message"


@pytest.mark.parametrize("kind", ["async", "thread", "yields", "async yields"])
async def test_a_batch_that_fails_is_handled_in_halves(broker_url: str, tmp_path: Path, kind: str) -> None:
    app = rabbitry.App("halved", store=f"sqlite:///{tmp_path}/once.sqlite3")
    done: list[str] = []

    def work(texts: list[str]) -> list[Any]:
        """Fail for one message, and return for another one what can't be encoded."""
        if "poison" in texts:
            raise ValueError("poison")
        if "raw" not in texts:
            done.extend(texts)
        return [object() if text == "raw" else text for text in texts]

    options: dict[str, Any] = {"then": "out", "batch": 8, "within": 0.3, "attempts": 1}
    stage = app.stage("in", name="handle", idempotent=lambda text: text, **options)
    if kind == "thread":

        @stage
        def handle(texts: list[str]) -> list[Any]:
            return work(texts)
    elif kind == "async":

        @stage
        async def handle_async(texts: list[str]) -> list[Any]:
            return work(texts)
    elif kind == "yields":

        @stage
        def handle_yielding(texts: list[str]) -> Iterator[Any]:
            yield from work(texts)
    else:

        @stage
        async def handle_async_yielding(texts: list[str]) -> AsyncIterator[Any]:
            for value in work(texts):
                yield value

    app.output("out", queue="halved.out")
    texts = ["a", "b", "poison", "c", "raw", "d"]
    async with app.publisher(broker_url) as publisher:
        for text in texts:
            await publisher.publish(text, key="in")
        async with app.worker(broker_url, connect_attempts=1) as worker:
            await eventually_dead(broker_url, app, 2)
            stage_counts = worker._engine.counting.stages["handle"]
            await eventually(lambda: not stage_counts.in_hand and set(done) == set("abcd"), "all to be settled")
            for text in ("a", "d"):
                await publisher.publish(text, key="in")
            await eventually(lambda: stage_counts.not_done["skipped"] == 2, "copies are skipped")
            await eventually(lambda: not stage_counts.in_hand, "all to be settled")
    came = Counter(body.decode() for body in await bodies(broker_url, "halved.out"))
    assert set(came) == set("abcd")
    if "yields" not in kind:  # of an attempt that fails, what was yielded before stays published
        assert came == Counter("abcd"), came
        assert Counter(done) == Counter("abcd")


killing = rabbitry.App("killing")


@killing.stage("in", then="out", batch=4, within=0.3, idempotent=True, processes=True, concurrency=1, attempts=2)
def handle_in_process(texts: list[str]) -> list[str]:
    if "exit" in texts and len(texts) > 1:
        os._exit(3)
    return texts


killing.output("out")


async def test_a_batch_whose_process_dies_is_handled_one_by_one() -> None:
    async with harness(killing) as h:
        for text in ("a", "exit", "b"):
            await h.publish(text, key="in")
        await h.idle()
        assert sorted(h.all_published("out")) == ["a", "b", "exit"]
        assert await h.all_dead() == []


class _Door:
    """A gate that opens to a text."""

    def __init__(self, text: str) -> None:
        self.is_skipped = text == "skipped"
        self.looks = 0
        self.released = 0
        self._text = text

    def take(self) -> _gate.Taken | None:
        self.looks += 1
        if self._text == "away":
            try:
                raise rabbitry.StoreError("it does not answer")
            except rabbitry.StoreError as error:
                raise rabbitry.Retry("no store", count=False) from error
        if self._text == "busy":
            raise rabbitry.Retry("busy", count=False)
        return None if self._text in ("skipped", "note") else _gate.Taken(self._text)

    def release(self) -> None:
        self.released += 1

    def note(self) -> Outgoing | None:
        return None if self._text == "keyless" else Outgoing(b"", key="notes")


def _batch_of(doors: list[_Door]) -> tuple[GatedBatch, Batch]:
    batch, names = Batch(len(doors)), [f"m{place}" for place in range(len(doors))]
    arguments = {"texts": [], "messages": names, "batch": batch, "other": 7}
    return GatedBatch(doors, batch, arguments, Signature("texts", str, "messages", "batch")), batch


def test_each_message_is_settled_by_its_gate() -> None:
    doors = [_Door(text) for text in ("busy", "a", "skipped", "b", "note", "c")]
    call, batch = _batch_of(doors)
    given = call.take()
    assert given is not None
    inner = given.pop("batch")
    assert given == {"texts": ["a", "b", "c"], "messages": ["m1", "m3", "m5"], "other": 7}
    assert len(inner) == 3
    assert list(failures_of(batch)) == [0]
    assert skipped_of(batch) == {2}
    inner.fail(1, ValueError("b"))
    joined = _gates._published(call, [Outgoing("x", index=2), "y"])
    assert [value.index if isinstance(value, Outgoing) else value for value in joined] == [5, "y", 1, 5]
    assert list(failures_of(batch)) == [0, 3]
    assert [door.released for door in doors] == [0, 0, 0, 1, 0, 0]
    with pytest.raises(IndexError, match="index=3 is none of the batch's messages: there are 3"):
        call.placed(Outgoing("z", index=3))
    call.release()
    assert [door.released for door in doors] == [0, 1, 0, 2, 0, 1]


def test_a_store_that_does_not_answer_is_asked_once_for_a_batch() -> None:
    doors = [_Door(text) for text in ("a", "away", "b", "c")]
    call, batch = _batch_of(doors)
    given = call.take()
    assert given is not None
    assert given["texts"] == ["a"]
    assert [door.looks for door in doors] == [1, 1, 0, 0]
    assert list(failures_of(batch)) == [1, 2, 3]


def test_a_message_without_a_key_leaves_no_note() -> None:
    call, _ = _batch_of([_Door("keyless"), _Door("a")])
    assert call.take() is not None
    assert [note.index for note in call.notes()] == [1]


def test_a_batch_without_a_message_to_handle_calls_no_handler() -> None:
    call, _ = _batch_of([_Door("skipped"), _Door("note"), _Door("busy")])
    assert call.take() is None


def test_what_was_claimed_before_an_exit_is_released() -> None:
    class Exiting(_Door):
        def take(self) -> _gate.Taken | None:
            raise SystemExit(3)

    doors = [_Door("a"), Exiting("b")]
    call, _ = _batch_of(doors)
    with pytest.raises(SystemExit):
        call.take()
    assert [door.released for door in doors] == [1, 0]


@pytest.mark.parametrize("kind", ["message", "batch"])
async def test_what_a_cancelled_call_claims_meanwhile_is_released(kind: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(_Door):
        def take(self) -> _gate.Taken | None:
            entered.set()
            go_on.wait()
            return super().take()

    doors: list[_Door] = [Slow("a"), _Door("b")] if kind == "batch" else [Slow("a")]
    call = _batch_of(doors)[0] if kind == "batch" else _gates._GatedMessage(doors[0], {}, "text")
    task = asyncio.create_task(_gates._taken(call))
    try:
        await eventually(entered.is_set, "the gate to be asked")
        task.cancel()
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {door.released for door in doors} == {1}
