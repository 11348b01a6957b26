"""Joins: a job is split, and one call of a handler takes all its parts."""

import asyncio
import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow._parts import Part, part_of
from rabbitry.flow._stores.join_sql import SqlStore
from rabbitry.flow.middleware import Next
from rabbitry.flow.once import store_given
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker import _splitting
from rabbitry.testing import harness
from tests.flow._apps import joining
from tests.flow._running import bodies, counts, dead_of, eventually_holds, gathered, put
from tests.support.waiting import eventually_awaited


class Tile(msgspec.Struct):
    """A part of the tests."""

    text: str


class Images:
    """An app that splits, works on each part, and joins; counts are of calls."""

    def __init__(self, store: str | None = None, *, within: float = 3600.0, late: str = "dead") -> None:
        self.app = rabbitry.App("images")
        self.joined: list[list[str]] = []
        self.lost: set[str] = set()
        """Parts that lead to nothing."""
        self.twice = False
        """Whether each part comes twice."""

        @self.app.stage("image", then="tile")
        async def cut(text: str) -> list[str]:
            return text.split()

        @self.app.stage("tile", then="rendered")
        def render(text: str) -> list[rabbitry.Outgoing]:
            tile = rabbitry.Outgoing(Tile(text.upper()), headers={"x-mine": 1})
            return [] if text in self.lost else [tile] * (2 if self.twice else 1)

        @self.app.join("rendered", of="cut", then="done", within=within, late=late, store=store)  # type: ignore[arg-type] # as a user may
        def assemble(tiles: list[Tile]) -> str:
            self.joined.append([tile.text for tile in tiles])
            return " ".join(tile.text for tile in tiles)

        self.app.output("done", queue="images.done")


async def test_the_parts_of_a_job_are_joined_in_their_order() -> None:
    images = Images()
    async with harness(images.app) as h:
        await h.publish("to be or not to be", key="image")
        assert await h.published("done", type=str) == "TO BE OR NOT TO BE"
        assert Tile("TO") in h.all_published("rendered"), "decoded as one part"
    assert images.joined == [["TO", "BE", "OR", "NOT", "TO", "BE"]]


async def test_a_part_that_comes_twice_counts_once() -> None:
    images = Images()
    images.twice = True
    async with harness(images.app) as h:
        for _ in range(3):
            await h.publish("a b c", key="image")
        await h.idle()
        assert h.all_published("done", type=str) == ["A B C"] * 3
        assert len(h.all_published("rendered")) == 18
        assert await h.all_dead() == []


async def test_a_job_without_parts_is_joined_at_once() -> None:
    images = Images()
    async with harness(images.app) as h:
        await h.publish("", key="image")
        assert await h.published("done", type=str) == ""
    assert images.joined == [[]]


async def test_a_join_that_fails_runs_again_with_all_its_parts() -> None:
    app = rabbitry.App("failing")
    seen: list[list[int]] = []

    @app.stage("job", then="part")
    async def split(number: int) -> list[int]:
        return list(range(number))

    @app.join("part", of="split", then="done")
    async def join(parts: list[int]) -> int:
        seen.append(parts)
        if len(seen) < 3:
            raise ValueError(len(seen))
        return sum(parts)

    app.output("done")
    async with harness(app, raise_errors=False) as h:
        await h.publish(4, key="job")
        assert await h.published("done") == 6
        await h.idle()
        assert await h.all_dead() == []
    assert seen == [[0, 1, 2, 3]] * 3


async def test_a_part_may_be_split_again_and_joined_on_the_way() -> None:
    app = rabbitry.App("nested")

    @app.stage("book", then="page")
    async def pages(text: str) -> list[str]:
        return text.split("/")

    @app.stage("page", then="word")
    async def words(text: str) -> list[str]:
        return text.split()

    @app.stage("word", then="loud")
    async def shout(word: str) -> str:
        return word.upper()

    @app.join("loud", of="words", then="loud page")
    async def page(words: list[str]) -> str:
        return " ".join(words)

    @app.join("loud page", of="pages", then="loud book")
    async def book(pages: list[str]) -> str:
        return "/".join(pages)

    app.output("loud book")
    async with harness(app) as h:
        for text in ("a b c/d/e f", "g/h i"):
            await h.publish(text, key="book")
        found = {await h.published("loud book", type=str) for _ in range(2)}
        assert found == {"A B C/D/E F", "G/H I"}
        await h.idle()
        assert len(h.all_published("loud book", type=str)) == 2


async def test_a_join_that_became_a_dead_letter_runs_when_it_is_replayed() -> None:
    images = Images()
    is_down = True
    app = images.app

    @app.middleware(stages=["assemble"])
    def around(message: rabbitry.Message, call_next: Next) -> object:
        return call_next()

    @app.join("rendered", of="cut", name="strict", then="done")
    async def strict(tiles: list[Tile]) -> str:
        if is_down:
            raise rabbitry.Reject("down")
        return str(len(tiles))

    async with harness(app) as h, rabbitry.connect(h.url) as connection:
        await h.publish("a b c", key="image")
        letter = await h.dead()
        assert letter.error == "down"
        await h.idle()
        is_down = False
        assert await dead_letters.replay(connection, app.name, lambda _: True) == (1, [])
        await h.idle()
        assert sorted(h.all_published("done", type=str)) == ["3", "A B C"]


async def test_parts_go_through_batches_and_generators() -> None:
    app = rabbitry.App("batches")

    @app.stage("job", then="part")
    async def split(number: int) -> list[int]:
        return list(range(number))

    @app.stage("part", then="batched", batch=3)
    async def double(numbers: list[int]) -> list[rabbitry.Outgoing]:
        return [rabbitry.Outgoing(2 * number, index=index) for index, number in enumerate(numbers)]

    @app.stage("batched", then="ready")
    async def repeat(number: int) -> AsyncIterator[int]:
        yield number

    @app.join("ready", of="split", then="done")
    async def join(parts: list[int]) -> list[rabbitry.Outgoing]:
        return [rabbitry.Outgoing({"parts": parts})]

    app.output("done")
    async with harness(app) as h:
        await h.publish(7, key="job")
        assert await h.published("done") == {"parts": [0, 2, 4, 6, 8, 10, 12]}


async def test_a_message_that_is_split_again_has_the_same_parts(broker_url: str, tmp_path: Path) -> None:
    images = Images(f"sqlite:///{tmp_path}/joins.sqlite3")
    async with images.app.worker(broker_url), rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        properties = rabbitry.Properties(message_id="the same", content_type="text/plain")
        for _ in range(3):
            await channel.publish(b"a b c", exchange="images", routing_key="image", properties=properties)
        await eventually_holds(broker_url, "images.done", 1)
        await eventually_settled(broker_url)
    assert await bodies(broker_url, "images.done") == [b"A B C"]
    assert images.joined == [["A", "B", "C"]]


async def eventually_settled(url: str) -> None:
    """Wait until the app of the images has nothing left to do, apart from limits of time."""
    for stage in ("cut", "render", "assemble"):
        await eventually_holds(url, f"images.{stage}", 0)


async def test_past_its_limit_a_job_is_a_dead_letter(broker_url: str, tmp_path: Path) -> None:
    images = Images(f"sqlite:///{tmp_path}/joins.sqlite3", within=8)  # longer than a busy machine takes for the others
    images.lost.add("b")
    async with images.app.worker(broker_url):
        await images.app.publish("a b c", key="image")
        await eventually_holds(broker_url, "images.dead", 1)
    (letter,) = await dead_of(broker_url, images.app)
    assert letter.reason == "late"
    assert letter.error.endswith("has 1 part of 3 missing after 8 s: 1")
    assert images.joined == []


async def test_past_its_limit_a_job_is_joined_with_what_is_there(broker_url: str, tmp_path: Path) -> None:
    images = Images(f"sqlite:///{tmp_path}/joins.sqlite3", within=8, late="join")
    images.lost.add("b")
    async with images.app.worker(broker_url):
        await images.app.publish("a b c", key="image")
        await eventually_holds(broker_url, "images.done", 1)
    assert images.joined == [["A", "C"]]
    assert await dead_of(broker_url, images.app) == []


async def test_what_is_no_part_is_a_dead_letter() -> None:
    images = Images()
    async with harness(images.app) as h:
        await h.publish(Tile("x"), key="rendered")
        letter = await h.dead()
        assert letter.error.startswith("no part of a job")


async def test_a_job_of_too_many_parts_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_splitting, "MOST_PARTS", 2)
    images = Images()
    async with harness(images.app) as h:
        await h.publish("a b c", key="image")
        assert "can't be split in 3 parts: 2 at most" in (await h.dead()).error
        assert h.all_published("tile", type=str) == []


async def test_workers_join_over_redis(broker_url: str, redis_url: str) -> None:
    images = Images(store=f"{redis_url}/0")
    images.twice = True
    texts = [f"{number} a b" for number in range(20)]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(images.app.worker(broker_url, connect_attempts=1))
        async with images.app.publisher(broker_url) as publisher:
            for text in texts:
                await publisher.send(text, key="image")
        done = {text.upper() for text in texts}
        came = await gathered(broker_url, ["images.done"], done)
    assert came["images.done"] == Counter(done)


async def test_a_join_without_sqlalchemy_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rabbitry.flow._stores.join_sql", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    images = Images()
    with pytest.raises(rabbitry.DependencyFailed, match=r"'sqlalchemy', .* comes with the extra 'records'"):
        async with harness(images.app):
            pass


def test_parts_are_read_from_their_header() -> None:
    assert part_of(str(Part("a/b", 1, 3))) == Part("a/b", 1, 3)
    assert part_of(f"{Part('outer', 0, 1)}\n{Part('inner', 2, 3)}") == Part("inner", 2, 3)
    called = Part("a job/1", 0, 2, "amq.rabbitmq.reply-to.g1h2/AA= =.x\n")
    assert part_of(f"{Part('outer', 0, 1)}\n{called}") == called
    assert [part_of(text) for text in ("", "a", "a/1", "a/x/3")] == [None] * 4


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"of": "nobody"}, "of='nobody': app 'wrong' has no such stage"),
        ({"of": "many"}, "must take one message and return the list of its parts"),
        ({"of": "join"}, "must take one message and return the list of its parts"),
        ({"of": "split", "queue": "job"}, "queue 'job' has the name of a key"),
        ({"of": ""}, "of='': must be the name of a stage"),
        ({"of": "split", "late": "never"}, "late='never': must be 'dead' or 'join'"),
        ({"of": "split", "within": -1}, "within=-1: must be seconds"),
        ({"of": "split", "within": None}, "within=None: a join has a limit of time"),
    ],
)
def test_a_join_that_can_not_be_names_itself(options: dict[str, Any], what: str) -> None:
    app = rabbitry.App("wrong")

    @app.stage("job", then="part")
    def split(number: int) -> list[int]:
        return [number]

    @app.stage("jobs", then="part")
    def many(number: int) -> Iterator[int]:
        yield number

    def join(parts: list[int]) -> None: ...

    def declare() -> None:
        app.join("part", **options)(join)
        app.validate()

    with pytest.raises(rabbitry.AppError, match=re.escape(what)):
        declare()


def test_the_handler_of_a_join_takes_a_list() -> None:
    app = rabbitry.App("wrong")
    with pytest.raises(rabbitry.AppError, match="in a join 'part' must be a list"):

        @app.join("part", of="split")
        def one(part: int) -> None: ...


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_join_may_yield_and_runs_again_if_it_fails(kind: str) -> None:
    app = rabbitry.App("yields")
    runs: list[list[int]] = []

    @app.stage("job", then="part")
    async def split(number: int) -> list[int]:
        return list(range(number))

    def check(parts: list[int]) -> None:
        runs.append(parts)
        if len(runs) == 1:
            raise ValueError(parts)

    async def in_loop(parts: list[int]) -> AsyncIterator[int]:
        for part in parts:
            yield part
        check(parts)

    def in_thread(parts: list[int]) -> Iterator[int]:
        yield from parts
        check(parts)

    app.join("part", of="split", then="done", delays=[0])(in_loop if kind == "loop" else in_thread)
    app.output("done")
    async with harness(app, raise_errors=False) as h:
        await h.publish(3, key="job")
        await h.idle()
        assert h.all_published("done") == [0, 1, 2] * 2, "what was yielded before the error stays published"
        assert await h.all_dead() == []
    assert runs == [[0, 1, 2]] * 2


async def test_a_message_to_be_split_that_is_published_again_is_the_same_job(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("again")
    joined: list[list[str]] = []

    @app.stage("order", then="image")
    async def order(text: str) -> list[str]:
        return [f"{text} {number}" for number in range(2)]

    @app.stage("album", then="image")
    def album(text: str) -> Iterator[str]:
        for number in range(2):
            yield f"{text} {number}"

    @app.stage("image", then="tile")
    async def cut(text: str) -> list[str]:
        return text.split()

    @app.join("tile", of="cut", then="done", store=f"sqlite:///{tmp_path}/joins.sqlite3")
    async def assemble(tiles: list[str]) -> str:
        joined.append(tiles)
        return " ".join(tiles)

    app.output("done", queue="again.done")
    wanted = [["a", "0"], ["a", "1"], ["b", "0"], ["b", "1"]]
    async with app.worker(broker_url, connect_attempts=1):
        for _ in range(2):  # as if the worker had died before it could acknowledge
            for body, queue in ((b"a", "again.order"), (b"b", "again.album")):
                await put(broker_url, queue, body, Properties(content_type="text/plain", message_id=queue))
        await eventually_holds(broker_url, "again.done", 4)
        queues = [stage.queue for stage in app.stages.values()]
        await eventually_awaited(lambda: _are_empty(broker_url, queues), "all copies are settled")
        assert sorted(joined) == wanted
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            async with channel.consume("again.done") as deliveries:
                ids = {(await anext(deliveries)).properties.message_id for _ in range(4)}
    assert len(ids) == 4
    assert sorted(body.decode() for body in await bodies(broker_url, "again.done")) == ["a 0", "a 1", "b 0", "b 1"]


async def _are_empty(url: str, queues: list[str]) -> bool:
    return not any((await counts(url, queues)).values())


@pytest.mark.parametrize("kind", ["thread", "async"])
async def test_a_join_that_is_closed_half_way_gives_its_job_back(kind: str, tmp_path: Path) -> None:
    app = rabbitry.App("closing")

    @app.stage("job", then="part")
    async def split(number: int) -> list[int]:
        return [number]

    @app.join("part", of="split", name="thread", queue="closing.thread")
    def each(parts: list[int]) -> Iterator[int]:
        yield from parts

    @app.join("part", of="split", name="async", queue="closing.async")
    async def each_async(parts: list[int]) -> AsyncIterator[int]:
        for part in parts:
            yield part

    store = SqlStore(f"sqlite:///{tmp_path}/joins.sqlite3", f"closing.{kind}", 60, 60)
    try:
        message = rabbitry.Message(
            "m", "m", 1, kind, f"closing.{kind}", "", "", None, None, None, None, {"x-rabbitry-part": "j/0/1"}
        )
        values = app.stages[kind].handler(parts=b"7", _rabbitry_store=store, _rabbitry_message=message)
        assert (next(values) if kind == "thread" else await anext(values)) == 7
        with pytest.raises(rabbitry.Retry, match="is being joined"):
            store.arrive(Part("j", 0, 1), "m", "1.0.0.0", b"7")
        if kind == "thread":
            values.close()
        else:
            await values.aclose()
        assert store.arrive(Part("j", 0, 1), "m", "1.0.0.0", b"7") == [b"7"], "a copy runs it"
    finally:
        store.close()


async def test_the_caller_of_a_job_gets_the_result_of_its_join(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("called")

    @app.stage("text", then="word", attempts=1)
    async def split(text: str, context: rabbitry.Context) -> list[str]:
        if text == "no":
            raise rabbitry.Reject("it is no text")
        await context.progress("split")
        return text.split()

    @app.stage("word", then="length")
    def measure(word: str) -> list[int]:
        return [] if word == "lost" else [len(word)] * 2  # each part comes twice

    store = f"sqlite:///{tmp_path}/joins.sqlite3"

    @app.join("length", of="split", then="total", within=12, attempts=1, store=store, replies=True)
    def total(lengths: list[int]) -> int | None:
        if 7 in lengths:
            raise ValueError("seven")
        return sum(lengths) or None

    app.output("total", required=False)
    seen: list[str] = []
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:

        async def call(text: str) -> object:
            return await publisher.call(text, key="text", timeout=90, on_progress=seen.append)

        assert await asyncio.gather(*(call(f"to be or {'x' * n}") for n in range(1, 5))) == [7, 8, 9, 10]
        assert seen == ["split"] * 4
        assert await call("") is None, "a job without parts"
        for text, reason, error in (
            ("no", "rejected", "it is no text"),
            ("seventy one 1234567", "failed", "seven"),
            ("a lost one", "late", "1 part of 3 missing after 12 s"),
        ):
            with pytest.raises(rabbitry.CallFailed, match=error) as caught:
                await call(text)
            assert caught.value.reason == reason
        with pytest.raises(rabbitry.UsageError, match="no stage that takes it has replies=True"):
            await publisher.call(1, key="length", timeout=1)


def test_a_job_has_one_reply() -> None:
    app = rabbitry.App("twice")

    @app.stage("job", then="part", replies=True)
    async def split(number: int) -> list[int]:
        return [number]

    @app.join("part", of="split", replies=True)
    async def join(parts: list[int]) -> None: ...

    with pytest.raises(rabbitry.AppError, match="the caller of stage 'split' gets one reply"):
        app.validate()


async def test_a_join_runs_in_processes(broker_url: str, tmp_path: Path) -> None:
    with store_given(f"sqlite:///{tmp_path}/joins.sqlite3"):
        async with (
            joining.worker(broker_url, connect_attempts=1),
            joining.publisher(broker_url) as publisher,
        ):
            joined = await publisher.call(f"{tmp_path}/mark a b c", key="job", timeout=90)
            await eventually_holds(broker_url, "joining.each.out", 3)
    assert (tmp_path / "mark").exists(), "the first process died"
    *parts, process = str(joined).split()
    assert parts == ["a", "b", "c"]
    assert int(process) != os.getpid()
    assert await bodies(broker_url, "joining.each.out") == [b"a", b"b", b"c"]
    assert await dead_of(broker_url, joining) == []
