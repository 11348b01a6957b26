"""An app with a handler of each kind; apart from the others, whose processes need not import pydantic."""

import dataclasses
import os

import pydantic

import rabbitry
from tests.flow._apps import Item


@dataclasses.dataclass
class Data:
    """The same as a dataclass."""

    n: int


class Model(pydantic.BaseModel):
    """The same as a pydantic model."""

    n: int


kinds = rabbitry.App("kinds")


@kinds.stage("struct", then="dataclass")
async def struct(item: Item) -> Item:
    return Item(item.n + 1)


@kinds.stage("dataclass", then="pydantic")
def with_dataclass(item: Data) -> Data:
    return Data(item.n + 1)


@kinds.stage("pydantic", then="dict")
async def with_model(item: Model) -> Model:
    return Model(n=item.n + 1)


@kinds.stage("dict", then="text")
def with_dict(item: dict[str, int]) -> str:
    return str(item["n"] + 1)


@kinds.stage("text", then="bytes")
async def with_text(item: str) -> bytes:
    return str(int(item) + 1).encode()


@kinds.stage("bytes", then="process")
def with_bytes(item: bytes, message: rabbitry.Message) -> Item:
    assert message.stage == "with_bytes"
    return Item(int(item) + 1)


@kinds.stage("process", then="end", processes=True, concurrency=1)
def in_process(item: Item, message: rabbitry.Message) -> dict[str, object]:
    return {"n": item.n + 1, "correlation_id": message.correlation_id, "pid": os.getpid()}


kinds.output("end")
