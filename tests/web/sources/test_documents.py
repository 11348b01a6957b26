"""The AsyncAPI documents that workers announce."""

import json
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.flow import schemas
from rabbitry.flow.worker import _counting
from rabbitry.telemetry import Report
from rabbitry.web.sources import documents as limits
from rabbitry.web.sources.documents import Documents


def _app(name: str, type_: type = str) -> rabbitry.App:
    app = rabbitry.App(name)

    @app.stage("in")
    async def handle(text: type_) -> None: ...  # type: ignore[valid-type] # a variable type

    return app


def _report(name: str, document: dict[str, Any], started: float = 1.0) -> Report:
    return Report("start", name, "handle", "1", "h", 1, 0.0, started, document=document)


def test_the_document_of_the_worker_that_started_last_is_kept() -> None:
    documents = Documents()
    old, new = (schemas.document(_app("shop", type_).spec()) for type_ in (int, str))
    assert (documents.find("shop"), "shop" in documents) == (None, False)
    documents.take(_report("shop", new, started=2.0))
    documents.take(_report("shop", old, started=1.0))
    assert json.loads(documents.find("shop") or b"") == new
    documents.take(_report("shop", old, started=3.0))
    assert json.loads(documents.find("shop") or b"") == old


def test_what_is_no_document_or_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, good = Documents(), schemas.document(_app("shop").spec())
    wrong: list[dict[str, Any]] = [{}, {"operations": 1}, good | {"components": {"messages": []}}]
    for each in wrong:
        documents.take(_report("shop", each))
    assert "shop" not in documents
    monkeypatch.setattr(limits, "MOST_APPS", 1)
    documents.take(_report("shop", good))
    documents.take(_report("other", good))
    assert ("shop" in documents, "other" in documents) == (True, False)
    monkeypatch.setattr(limits, "MOST_APPS", 2)
    size = len(msgspec.json.encode(good))
    monkeypatch.setattr(limits, "MOST_BYTES", 2 * size - 1)
    documents.take(_report("other", good))
    documents.take(_report("shop", good, started=2.0))
    assert ("shop" in documents, "other" in documents) == (True, False), "there is no room for a second one"
    monkeypatch.setattr(limits, "MOST_BYTES", 2 * size)
    documents.take(_report("other", good))
    assert "other" in documents
    monkeypatch.setattr(limits, "LARGEST", 10)
    documents.take(_report("shop", good | {"defaultContentType": "text/plain"}))
    assert json.loads(documents.find("shop") or b"") == good


def test_a_document_that_is_too_large_for_a_report_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    app = _app("large")
    size = len(msgspec.json.encode(schemas.document(app.spec())))
    for limit, is_told in ((size, True), (size - 1, False)):
        monkeypatch.setattr(_counting, "LARGEST_DOCUMENT", limit)
        (report,) = app.worker()._engine.counting.reports("start")
        assert (report.document is not None) is is_told
