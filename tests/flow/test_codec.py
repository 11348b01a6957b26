"""What is published is read: each kind of type takes the values that `encode` made."""

import asyncio
import enum
import uuid
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest

import rabbitry
from rabbitry.exceptions import Undecodable
from rabbitry.flow.codec import BYTES, JSON, TEXT, Codec, encode
from rabbitry.flow.key import Key
from rabbitry.testing import harness


class Name(str):
    """A subclass of `str`."""

    __slots__ = ()


class Colour(enum.StrEnum):
    """Values that are text."""

    RED = "red"


class Old(str, enum.Enum):  # noqa: UP042 - what programs have from before StrEnum
    """Values that are text, too."""

    RED = "red"


class Shade(enum.Enum):
    """Values that are no text, although theirs are."""

    RED = "red"


class Level(enum.IntEnum):
    """Values that are numbers."""

    LOW = 1


class Person(msgspec.Struct):
    """Text within a value."""

    name: Name
    colour: Colour


Id = NewType("Id", str)
Short = Annotated[str, msgspec.Meta(max_length=3)]
Raw = NewType("Raw", bytes)


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (str, ["a", "5", "null", ""]),
        (Name, [Name("a"), Name("5")]),
        (Id, ["a", '"a"', "5"]),
        (Short, ["a", "5"]),
        (Literal["a", "5"], ["a", "5"]),
        (Literal["a", "1", 1, None], ["a", "1", 1, None]),
        (Colour, [Colour.RED]),
        (Old, [Old.RED]),
        (Shade, [Shade.RED]),
        (Level, [Level.LOW]),
        (Colour | int, [Colour.RED, 5]),
        (str | None, ["a", "null", None]),
        (Short | None, ["a", None]),
        (str | int, ["a", "5", 5]),
        (str | list[str], ["[]", ["a"], []]),
        (str | Person, ["{}", Person(Name("Ada"), Colour.RED)]),
        (object, ["a", "5", b"5", 5, None, ["a"]]),
        (Any, ["a", "5", b"5", 5, None, ["a"]]),
        (bytes, [b"a", b"5", b""]),
        (Raw, [b"a", b"5"]),
        (bytearray, [bytearray(b"a")]),
        (bytes | None, [b"a", b"null", None]),
        (uuid.UUID, [uuid.UUID(int=1)]),
        (date, [date(2028, 2, 29)]),
        (dict[str, Name], [{"a": Name("b")}]),
    ],
    ids=str,
)
def test_a_type_reads_the_values_that_are_published(type_: Any, values: Sequence[object]) -> None:
    codec = Codec(type_)
    for value in values:
        encoded = encode(value)
        read = codec.decode(encoded.body, encoded.content_type)
        assert (read, type(read)) == (value, type(value))
        restored = codec.restored(codec.kept(encoded.body, encoded.content_type))
        assert (restored, type(restored)) == (value, type(value))


@pytest.mark.parametrize(
    ("type_", "body", "content_type", "text"),
    [
        (Literal["a", "b"], b"c", TEXT, "Invalid enum value 'c'"),
        (Short, b"long", TEXT, "length <= 3"),
        (Colour, b"blue", TEXT, "Invalid enum value 'blue'"),
        (str | int, b"a", JSON, "malformed"),
        (int, b"a", TEXT, "malformed"),
        (Annotated[bytes, msgspec.Meta(max_length=1)], b"ab", BYTES, "length <= 1"),
        (Person, b'{"name": 5, "colour": "red"}', JSON, r"Expected `str`, got `int` - at `\$\.name`"),
        (Literal["a"], b'"b"', JSON, "Invalid enum value"),
    ],
)
def test_what_is_not_of_the_type_is_undecodable(type_: Any, body: bytes, content_type: str, text: str) -> None:
    with pytest.raises(Undecodable, match=text):
        Codec(type_).decode(body, content_type)


@pytest.mark.parametrize("type_", [Literal["a"], Old, Colour], ids=str)
def test_text_that_other_programs_send_as_json_is_read(type_: Any) -> None:
    value = "a" if type_ == Literal["a"] else "red"
    assert Codec(type_).decode(f'"{value}"'.encode(), JSON) == value


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "Text/Plain"])
def test_a_content_type_may_have_parameters(content_type: str) -> None:
    codec = Codec(str | None)
    assert codec.decode(b"null", content_type) == "null"
    assert codec.restored(codec.kept(b"null", content_type)) == "null"


@pytest.mark.parametrize("value", [object(), [object()]], ids=["alone", "in a list"])
def test_what_can_not_be_encoded_is_named(value: object) -> None:
    with pytest.raises(TypeError, match="objects of type object is unsupported"):
        encode(value)


def test_the_schema_names_text() -> None:
    assert Codec(Literal["a", "b"]).schema() == {"enum": ["a", "b"], "contentMediaType": TEXT}
    assert Codec(Name).schema() == {"type": "string", "contentMediaType": TEXT}
    assert Codec(str | None).schema() == {"anyOf": [{"type": "string"}, {"type": "null"}]}


async def test_handlers_get_what_is_published(broker_url: str, tmp_path: Path) -> None:
    app = rabbitry.App("kinds")
    got: asyncio.Queue[object] = asyncio.Queue()

    @app.stage("choice")
    async def choose(choice: Literal["a", "b"]) -> None:
        got.put_nowait(choice)

    @app.stage("number")
    async def count(number: str | int) -> None:
        got.put_nowait(number)

    @app.stage("batch", batch=2, within=60)
    async def gather(texts: list[str | None]) -> None:
        got.put_nowait(texts)

    @app.stage("split", then="part")
    async def split(texts: list[str]) -> list[object]:
        return [*texts, 5]

    @app.join("part", of="split", store=f"sqlite:///{tmp_path}/parts.sqlite3")
    async def unite(parts: list[str | int]) -> None:
        got.put_nowait(parts)

    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        for key, value, read in (
            ("choice", "b", "b"),
            ("number", "5", "5"),
            ("number", 5, 5),
            ("split", ["a", "5"], ["a", "5", 5]),
        ):
            await publisher.publish(value, key=key)
            assert await asyncio.wait_for(got.get(), 80) == read
        await publisher.publish("null", key="batch")
        await publisher.publish(None, key="batch")
        assert await asyncio.wait_for(got.get(), 80) == ["null", None]


async def test_a_harness_reads_what_is_published() -> None:
    app = rabbitry.App("kinds")
    literal: Any = Literal["a", "b"]  # no class, for which there is no notation
    choice: Key[str] = app.key("choice", literal)

    @app.stage(choice, replies=True)
    async def choose(choice: Literal["a", "b"]) -> str | None:
        return None if choice == "a" else "null"

    async with harness(app) as h:
        text: Any = str | None
        assert await h.call("b", key=choice, type=text) == "null"
        assert await h.published(choice) == "b"
