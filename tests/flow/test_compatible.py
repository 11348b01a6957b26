"""Which messages of one type can be read as another: what is said is compared with what the decoders do."""

import enum
import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from rabbitry.exceptions import Undecodable
from rabbitry.flow._compatible import gaps
from rabbitry.flow.codec import Codec, encode


class Order(msgspec.Struct):
    article: str
    amount: int


class Longer(msgspec.Struct):
    article: str
    amount: int
    price: float = 0.0


class Needier(msgspec.Struct):
    article: str
    amount: int
    price: float


class Wider(msgspec.Struct):
    article: str | None
    amount: float


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    article: str
    amount: int


class Few(msgspec.Struct):
    article: str
    amount: Annotated[int, msgspec.Meta(ge=1, le=10)]


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Quoted(enum.Enum):  # its values are JSON, unlike those of an enum whose members are text themselves
    RED = "red"


class Tree(msgspec.Struct):
    name: str
    children: list["Tree"] = []


class Bush(msgspec.Struct):
    name: str
    children: list["Bush"] = []
    height: int = 0


class Numbered(msgspec.Struct):
    name: int
    children: list["Numbered"] = []


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


@dataclass
class Place:
    at: tuple[float, float]
    tags: dict[str, int]


class Model(pydantic.BaseModel):
    article: str
    amount: int = 1


SAMPLES: dict[Any, list[Any]] = {
    Order: [Order("tea", 2), Order("", -1)],
    Longer: [Longer("tea", 2, 1.5)],
    Needier: [Needier("tea", 2, 1.5)],
    Wider: [Wider(None, 0.5), Wider("tea", 2.0)],
    Strict: [Strict("tea", 2)],
    Few: [Few("tea", 1)],
    Model: [Model(article="tea")],
    Colour: [*Colour],
    Literal["red", "green"]: ["red", "green"],
    Literal["red"]: ["red"],
    int: [0, -5],
    float: [0.5, 2.0],
    int | None: [1, None],
    bool: [True],
    str: ["text"],
    bytes: [b"\xff"],
    list[int]: [[], [1]],
    list[float]: [[0.5]],
    tuple[int, str]: [(1, "a")],
    dict[str, int]: [{"a": 1}, {"article": 1, "amount": 2}],
    Tree: [Tree("a", [Tree("b")])],
    Bush: [Bush("a", [Bush("b")], 3)],
    Numbered: [Numbered(1, [Numbered(2)])],
    Cat: [Cat(9)],
    Cat | Dog: [Cat(9), Dog(["sit"])],
    Place: [Place((0.5, 1.5), {"a": 1})],
    object: [1, "x", None],
}


def between(writer: Any, reader: Any) -> list[str]:
    first, second = Codec(writer).schema(), Codec(reader).schema()
    assert first is not None
    assert second is not None
    return gaps(first, first, second, second)


def body_of(writer: Any, value: Any) -> bytes:
    """Return a message's body, with the type's own media type."""
    is_json = writer not in (str, bytes) and not isinstance(value, pydantic.BaseModel)
    return msgspec.json.encode(value) if is_json else encode(value).body


def test_what_is_said_to_be_read_is_read() -> None:
    for writer, reader in itertools.product(SAMPLES, SAMPLES):
        if not between(writer, reader):
            for value in SAMPLES[writer]:
                try:
                    Codec(reader).decode(body_of(writer, value))
                except Undecodable as error:
                    pytest.fail(f"{value!r} of {writer} as {reader}: {error}")


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (Order, Longer), (Longer, Order), (Needier, Longer), (Order, Wider), (Few, Order), (Strict, Order),
        (Order, Model), (Literal["red"], Colour), (Literal["red"], Literal["red", "green"]), (int, float),
        (int, int | None), (Tree, Bush), (Bush, Tree), (Cat, Cat | Dog), (list[int], list[float]), (Tree, bytes),
        (dict[str, int], object), *((each, each) for each in SAMPLES),
    ],
)  # fmt: skip
def test_a_change_that_both_can_read_is_none(writer: object, reader: object) -> None:
    assert between(writer, reader) == []


@pytest.mark.parametrize(
    ("writer", "reader", "said"),
    [
        (Order, Needier, ["$.price: is not there, and has no default where it is read"]),
        (Model, Order, ["$.amount: is not always there, and has no default where it is read"]),
        (Longer, Strict, ["$.price: unknown fields are refused"]),
        (Wider, Order, ["$.article: null is not read, but text", "$.amount: a number is not read, but a whole number"]),
        (Order, Few, ["$.amount: minimum is not given, and 1 where it is read",
                      "$.amount: maximum is not given, and 10 where it is read"]),
        (Colour, Literal["red"], ['$: "blue" is not read']),
        (Literal["red"], Quoted, ["they are text/plain, and application/json is read"]),
        (str, Tree, ["they are text/plain, and application/json is read"]),
        (Tree, Numbered, ["$.name: text is not read, but a whole number"]),
        (list[float], list[int], ["$[]: a number is not read, but a whole number"]),
        (int | None, int, ["$: null is not read, but a whole number"]),
        (Cat | Dog, Cat, ["$.lives: is not there, and has no default where it is read", '$.type: "Dog" is not read']),
        (dict[str, int], Bush, ["$.name: is not there, and has no default where it is read",
                                "$.name: a whole number is not read, but text",
                                "$.children: a whole number is not read, but a list"]),
        (tuple[int, str], tuple[int, int], ["$[1]: text is not read, but a whole number"]),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_its_place(writer: object, reader: object, said: list[str]) -> None:
    assert between(writer, reader) == said
