"""Questions and commands over the broker: any program asks, any keeper answers, both sides are bounded."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client import Properties, parse_url
from rabbitry.amqp.protocol.tables import Table
from rabbitry.apps.crawl import asking, names
from rabbitry.apps.crawl.answers import (
    Answered,
    AskExport,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    Exported,
    Found,
    Hosts,
    Refused,
    Status,
    Why,
)
from rabbitry.apps.crawl.asking import Asking, Waiting
from rabbitry.apps.crawl.keeper import answering, index
from rabbitry.apps.crawl.keeper.answering import answer_questions
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.role import Role
from rabbitry.apps.crawl.messages import Add, Answer, Command, Document, Pause
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import ConnectFailed, RequestTimeout, Undecodable, UsageError
from rabbitry.flow.wiring import topology
from tests.support import logs
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from tests.support.waiting import WITHIN, eventually_awaited

Reply = Callable[[bytes], bytes | None]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database with some documents, as a context manager."""
    url = f"sqlite:///{tmp_path / 'crawl.sqlite3'}"
    documents = [
        Document(f"http://h{n}.example/", 1.0, "p", fetched_at=2.0 + n, title=f"Page {n}", text="apples " * 50)
        for n in range(5)
    ]
    with Database(url) as opened:
        opened.write_now(partial(index.store, documents=documents))
    return Database(url)


@contextlib.asynccontextmanager
async def answered(url: str, database: Database) -> AsyncIterator[None]:
    """Answer questions from a database within the block."""
    stop = asyncio.Event()
    with database:
        async with rabbitry.connect(url) as connection:
            # Questions from before the keeper consumes wait in the queue.
            answering = asyncio.Event()
            task = asyncio.create_task(answer_questions(database, stop, answering, connection))
            await answering.wait()
            yield
            stop.set()
            await task


@contextlib.asynccontextmanager
async def replies(url: str, queue: str, reply: Reply) -> AsyncIterator[list[bytes]]:
    """Answer the messages of a queue with the test's replies; yield the messages."""
    came: list[bytes] = []
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        single: Table = {"x-single-active-consumer": True} if queue == names.KEEPER_QUEUE else {}
        await channel.declare_queue(queue, durable=True, arguments=single)

        async with channel.consume(queue) as deliveries:

            async def serve() -> None:
                async for delivery in deliveries:
                    came.append(delivery.body)
                    properties = delivery.properties
                    body = reply(delivery.body)
                    if body is not None and properties.reply_to:
                        await channel.publish(
                            body,
                            routing_key=properties.reply_to,
                            properties=Properties(correlation_id=properties.correlation_id),
                            mandatory=False,
                        )
                    delivery.ack()

            task = asyncio.create_task(serve())
            try:
                yield came
            finally:
                task.cancel()
                await asyncio.wait((task,))


async def test_each_query_has_its_answer(no_leaks: None, broker_url: str, database: Database) -> None:
    async with answered(broker_url, database), Asking(broker_url) as keeper:
        found, exported, status, hosts, why = await asyncio.gather(
            keeper.find(AskSearch("apples"), Found),
            keeper.find(AskExport(), Exported),
            keeper.find(AskStatus(), Status),
            keeper.find(AskHosts(), Hosts),
            keeper.find(AskWhy("http://nobody.example/"), Why),
        )
        assert (found.total, len(exported.entries), exported.total, exported.after) == (5, 5, 5, None)
        assert (status.documents, status.nodes, hosts.total, why.state) == (5, [], 0, "unknown")


async def test_many_queries_at_once_get_their_own_answers(broker_url: str, database: Database) -> None:
    async with answered(broker_url, database), Asking(broker_url) as keeper:
        questions = [AskWhy(f"http://h{number}.example/x") for number in range(100)]
        answers = await asyncio.gather(*(keeper.find(question, Why) for question in questions))
        assert [answer.url for answer in answers] == [question.url for question in questions]


async def test_an_invalid_query_is_refused_with_a_readable_error(broker_url: str, database: Database) -> None:
    async with answered(broker_url, database), Asking(broker_url) as keeper:
        assert isinstance(refused := await keeper.ask(AskSearch(" ")), Refused)
        assert refused.is_usage
        with pytest.raises(UsageError, match="no word to search for"):
            await keeper.find(AskSearch("\t"), Found)
        with pytest.raises(UsageError, match="a query must have at most"):
            await keeper.find(AskWhy("x" * 200_000), Why)
        for question in (AskSearch("apples", -(1 << 62), 1 << 62), AskHosts(-5, 1 << 62), AskExport(1 << 62)):
            assert not isinstance(await keeper.ask(question), Refused)
        # The keeper still answers.
        assert (await keeper.find(AskSearch("apples"), Found)).total == 5


NO_QUESTIONS = [
    b"", b"no JSON", b"[]", b"{}", b'{"question":"x"}', b'{"question":"why"}', b'{"question":"why","url":5}',
    b'{"question":"hosts","limit":1e400}', b"\xff\xfe", b"[" * 50_000,
]  # fmt: skip


async def test_a_malformed_query_is_refused_and_the_next_one_answered(broker_url: str, database: Database) -> None:
    async with answered(broker_url, database), rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        async with channel.consume("amq.rabbitmq.reply-to", no_ack=True) as answers:
            for body in NO_QUESTIONS:
                await channel.publish(
                    body,
                    routing_key=names.QUESTION_QUEUE,
                    properties=Properties(reply_to="amq.rabbitmq.reply-to", correlation_id="c"),
                )
                refused = msgspec.json.decode((await anext(answers)).body)
                assert (refused["answer"], refused["is_usage"]) == ("refused", True)
                await channel.publish(body, routing_key=names.QUESTION_QUEUE)  # without reply_to
        async with Asking(broker_url) as keeper:
            assert (await keeper.find(AskSearch("apples"), Found)).total == 5


async def test_a_slow_query_is_abandoned_with_a_readable_error(
    embedded_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "TIME_LIMIT", -1.0)
    monkeypatch.setattr(answering, "_STEPS", 1)
    async with answered(embedded_url, database), Asking(embedded_url) as keeper:
        with pytest.raises(RecordsError, match="took more than"):
            await keeper.find(AskSearch("apples"), Found)


async def test_slow_searches_do_not_delay_other_queries(
    embedded_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slow(*_: object) -> Found:
        assert go.wait(60)
        return Found([], 0)

    monkeypatch.setattr(answering, "search", slow)
    async with answered(embedded_url, database), Asking(embedded_url, patience=50.0) as keeper:
        searches = [asyncio.create_task(keeper.ask(AskSearch("apples"))) for _ in range(3 * answering.AT_ONCE)]
        try:
            for _ in range(20):
                assert (await keeper.find(AskStatus(), Status)).documents == 5
        finally:
            go.set()
        answers = await asyncio.gather(*searches)
        assert answers == [Found([], 0)] * len(searches)  # questions refused at first were asked again


async def test_a_keeper_that_stays_busy_reports_it(
    embedded_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "LONG_HELD", 0)
    async with answered(embedded_url, database), Asking(embedded_url, patience=5.0) as keeper:
        assert await keeper.ask(AskExport()) == Refused(answering.BUSY, is_busy=True)
        with pytest.raises(RecordsError, match="busy with other searches"):
            await keeper.find(AskSearch("apples"), Found)


async def test_without_a_keeper_a_query_fails_with_advice(broker_url: str) -> None:
    async with Asking(broker_url, patience=0.2) as keeper:
        with pytest.raises(RequestTimeout, match="start one, on any machine, with: rabbitry crawl keeper"):
            await keeper.ask(AskStatus())  # the queue does not exist either
    async with rabbitry.connect(broker_url) as connection:
        await (await connection.channel()).declare_queue(names.QUESTION_QUEUE, durable=True)
        async with Asking(broker_url, patience=0.2) as keeper:
            with pytest.raises(RequestTimeout, match=r"no keeper answers within 0\.2 s"):
                await keeper.ask(AskStatus())


async def test_a_command_without_a_keeper_waits_for_one_and_is_not_lost(broker_url: str) -> None:
    async with Asking(broker_url, patience=0.2) as keeper:
        with pytest.raises(Waiting, match="until a keeper takes it"):
            await keeper.tell(Add(["http://a.example/"]))

    def reply(body: bytes) -> bytes:
        return msgspec.json.encode(Answer(said=["paused"]))

    async with replies(broker_url, names.KEEPER_QUEUE, reply) as came, Asking(broker_url) as keeper:
        assert await keeper.tell(Pause()) == Answer(said=["paused"])
        commands = [msgspec.json.decode(body, type=Command) for body in came]
        assert commands == [Add(["http://a.example/"]), Pause()]


NO_ANSWERS = [
    (b"no JSON", "the keeper's answer can't be decoded"),
    (b'{"answer":"why","url":"u","state":"done"}', "is a Why, not a Status"),
    (b'{"answer":"status"}', "the keeper's answer can't be decoded"),
    (b'{"answer":"something"}', "the keeper's answer can't be decoded"),
    (b'{"answer":"status","at":"soon"}', "the keeper's answer can't be decoded"),
    (b'{"answer":"refused","error":"the disk is full"}', "the disk is full"),
    (b" " * 2_000, "more than 1,000"),
]


async def test_a_malformed_reply_is_refused(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LARGEST_ANSWER", 1_000)
    bodies = iter([body for body, _ in NO_ANSWERS])
    async with replies(embedded_url, names.QUESTION_QUEUE, lambda _: next(bodies)), Asking(embedded_url) as keeper:
        for _, why in NO_ANSWERS:
            with pytest.raises((Undecodable, RecordsError), match=why):
                await keeper.find(AskStatus(), Status)


async def test_a_keeper_can_use_the_queue_that_a_command_declared(
    broker_url: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with Asking(broker_url, patience=0.2) as keeper:
        with pytest.raises(Waiting):
            await keeper.tell(Pause())
    with database:
        app = Role(Node("keeper"), database).app()
        async with rabbitry.connect(broker_url) as connection:
            await topology.declare(connection, app.spec())
    assert logs.messages(caplog) == []


async def test_asking_reconnects_after_the_connection_was_closed(embedded_url: str, database: Database) -> None:
    async with answered(embedded_url, database), Asking(embedded_url) as keeper:
        await keeper.ask(AskStatus())
        await keeper.close()
        assert isinstance(await keeper.ask(AskStatus()), Status)


async def test_answering_survives_a_connection_lost_with_open_queries(
    no_leaks: None,
    broker_url: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def answer(*arguments: Any, **keywords: Any) -> Answered:
        began.set()
        assert goes_on.wait(WITHIN)
        return real(*arguments, **keywords)

    real = answering.answer
    monkeypatch.setattr(answering, "answer", answer)
    port = parse_url(broker_url).hosts[0][1]
    async with FaultProxy(port) as proxy, answered(broker_url.replace(f":{port}/", f":{proxy.port}/"), database):
        async with Asking(broker_url) as keeper:
            lost = asyncio.create_task(keeper.find(AskWhy("http://h1.example/x"), Why))
            assert await asyncio.to_thread(began.wait, WITHIN)
            await proxy.reset()
            goes_on.set()

            async def answered_again() -> Why | None:
                try:
                    return await keeper.find(AskWhy("http://h2.example/x"), Why)
                except (
                    RequestTimeout
                ):  # it was delivered on the lost connection; a redelivered question is not answered
                    return None

            found = await eventually_awaited(answered_again, "an answer")
            assert found is not None
            assert found.url == "http://h2.example/x"
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
    gc.collect()
    assert not any("never retrieved" in text for text in caplog.messages)


async def test_asking_survives_lost_connections(broker_url: str, database: Database) -> None:
    port = parse_url(broker_url).hosts[0][1]
    async with answered(broker_url, database), FaultProxy(port) as proxy:
        async with Asking(broker_url.replace(f":{port}/", f":{proxy.port}/")) as keeper:
            for number in range(3):
                assert isinstance(await keeper.ask(AskStatus()), Status)
                assert proxy.accepted > number
                await proxy.reset()


async def test_an_unreachable_broker_is_reported(no_leaks: None) -> None:
    async with Asking(f"amqp://127.0.0.1:{free_port()}") as keeper:
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                await keeper.ask(AskStatus())
