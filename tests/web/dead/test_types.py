"""The types that workers announce, and bodies checked against them."""

from typing import Any

import msgspec
import pytest

from rabbitry.flow.codec import Codec
from rabbitry.telemetry import Report
from rabbitry.web.dead import types
from rabbitry.web.dead.types import MOST_PROBLEMS, Types, problems


class _Item(msgspec.Struct):
    sku: str
    count: int


class _Order(msgspec.Struct):
    order: int
    items: list[_Item]
    note: object = None


def _report(stage: str, takes: dict[str, Any] | None) -> Report:
    return Report("start", "shop", stage, "id", "host", 1, 0.0, 0.0, takes=takes)


def test_what_a_worker_announces_is_known_until_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Types()
    found.take(_report("check", {"type": "object"}))
    found.take(_report("check", None))
    assert found.find("shop", "check") == {"type": "object"}
    assert found.find("shop", "other") is None
    found.take(_report("check", {"type": "string"}))
    assert found.find("shop", "check") == {"type": "string"}
    monkeypatch.setattr(types, "MOST_STAGES", 1)
    found.take(_report("bill", {}))
    assert found.find("shop", "bill") is None


@pytest.mark.parametrize(
    ("type_", "body", "texts"),
    [
        (_Order, '{"order": 1, "items": [{"sku": "a", "count": 2}], "note": [1], "more": 1}', []),
        (_Order, '{"order": "1", "items": [{"sku": 5}]}', ["$.order: ", "$.items[0]: ", "$.items[0].sku: "]),
        (_Order, "{", ["it is no JSON: "]),
        (list[int], "[1, 2, null]", ["$[2]: "]),
        (str, "no JSON", []),
        (bytes, "no JSON", []),
        (dict, "[]", ["$: "]),
        (object, "null", []),
    ],
)
async def test_a_body_is_checked_as_the_stage_would_decode_it(type_: object, body: str, texts: list[str]) -> None:
    codec = Codec(type_)
    schema = codec.schema()
    assert schema is not None
    found = await problems(schema, body)
    assert [text for text, begin in zip(found, texts, strict=True) if not text.startswith(begin)] == []
    if not texts:
        codec.decode(body.encode())


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema"}, {"$ref": "file:///etc/passwd"}, {"type": 5}, {"pattern": "(?=x)"},
        {"$ref": "#/nowhere"},
    ],
)  # fmt: skip
async def test_a_hostile_schema_is_a_text(schema: dict[str, Any]) -> None:
    (text,) = await problems(schema, '"x"')
    assert text.startswith("the type that the worker announced can't be used: ")


async def test_no_schema_recurses_or_backtracks_for_ever() -> None:
    loop = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    assert await problems({**loop, "$ref": "#/$defs/a"}, "1") == []
    assert await problems({"$ref": "#"}, "1") == []
    assert len(await problems({"pattern": "(a+)+$"}, f'"{"a" * 50}!"')) == 1
    deep = {"type": "array", "items": {"$ref": "#"}}
    for depth in (500, 100_000):
        assert len(await problems(deep, "[" * depth + "1" + "]" * depth)) == 1
    assert len(await problems({"items": {"type": "string"}}, str(list(range(100))))) == MOST_PROBLEMS


def test_types_that_are_too_large_or_too_many_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "LARGEST", 100)
    monkeypatch.setattr(types, "MOST_BYTES", 150)
    found = Types()
    text = {"description": "x" * 60}
    found.take(_report("a", text))
    found.take(_report("a", {"description": "x" * 100}))
    assert found.find("shop", "a") == text, "the last one for which there was room"
    found.take(_report("b", text))
    assert found.find("shop", "b") is None
    found.take(_report("a", {}))
    found.take(_report("b", text))
    assert found.find("shop", "b") == text
