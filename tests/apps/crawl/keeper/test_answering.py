"""Answers from both kinds of database, within their limits."""

from functools import partial

import pytest
from sqlalchemy import Connection

from rabbitry.apps.crawl.answers import (
    AskExport,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    Exported,
    Found,
    Hosts,
    Question,
    Status,
    Why,
)
from rabbitry.apps.crawl.keeper import answering, index
from rabbitry.apps.crawl.keeper.answering import answer
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.exceptions import RecordsError

_MOST = (1 << 63) - 1


def test_each_query_has_its_kind_of_answer(database: Database) -> None:
    document = Document("http://a.example/", 1.0, "p", fetched_at=1.0, title="A", text="apples")
    database.write_now(partial(index.store, documents=[document]))
    questions: list[tuple[Question, type]] = [
        (AskStatus(), Status),
        (AskWhy("http://a.example/"), Why),
        (AskWhy("no\0address \ud800"), Why),
        (AskWhy(""), Why),
        (AskWhy("http://a.example/" + "x" * 50_000), Why),
        (AskHosts(), Hosts),
        (AskHosts(_MOST, _MOST), Hosts),
        (AskHosts(-_MOST, -_MOST), Hosts),
        (AskSearch("apples"), Found),
        (AskSearch("apples", _MOST, _MOST), Found),
        (AskExport(), Exported),
        (AskExport(_MOST, True), Exported),
        (AskExport(-_MOST, True), Exported),
    ]
    for question, kind in questions:
        assert isinstance(database.read_now(partial(answer, question=question)), kind), question
    status = database.read_now(partial(answer, question=AskStatus()))
    assert isinstance(status, Status)
    assert (status.documents, status.nodes) == (1, None)


def test_a_slow_query_is_abandoned_and_the_next_one_answered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(connection: Connection, *_: object) -> Found:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_sleep(60)")
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n"
        ).all()
        return Found([], 0)

    monkeypatch.setattr(answering, "search", slow)
    monkeypatch.setattr(answering, "TIME_LIMIT", 0.1)
    for _ in range(2):
        with pytest.raises(RecordsError, match=r"more than 0\.1 s and was abandoned"):
            database.read_now(partial(answer, question=AskSearch("apples")))
    monkeypatch.setattr(answering, "TIME_LIMIT", 60.0)
    assert isinstance(database.read_now(partial(answer, question=AskStatus())), Status)
