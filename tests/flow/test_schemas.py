"""An app's messages as an AsyncAPI document, and the comparison of two versions."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.flow.schemas import changes, check_document, document
from tests.support import commands


class Line(msgspec.Struct):
    article: str


class Order(msgspec.Struct):
    lines: list[Line]


class Longer(msgspec.Struct):
    lines: list[Line]
    name: str


def shop(type_: type, *, queue: str | None = None, is_last: bool = False) -> dict[str, Any]:
    app = rabbitry.App("shop")

    @app.stage("order.new", then="bill", queue=queue)
    def price(order: type_) -> str:  # type: ignore[valid-type] # a type that the test chose
        return str(order)

    if not is_last:

        @app.stage("order.new", name="keep it")
        def keep(order: bytes) -> None: ...

    app.output(app.key("bill", str), queue="bills")
    return document(app.spec())


def test_stages_receive_and_outputs_are_sent() -> None:
    found = shop(Order)
    assert json.loads(json.dumps(found)) == found
    assert (found["asyncapi"], found["info"]["title"]) == ("3.0.0", "shop")
    assert found["channels"]["order.new"] == {
        "address": "order.new",
        "messages": {
            "price": {"$ref": "#/components/messages/price"},
            "keep_it": {"$ref": "#/components/messages/keep_it"},
        },
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": "shop", "type": "direct", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }
    assert {name: (each["action"], each["x-rabbitry-queue"]) for name, each in found["operations"].items()} == {
        "price": ("receive", "shop.price"),
        "keep_it": ("receive", "shop.keep it"),
        "bill": ("send", "bills"),
    }
    components = found["components"]
    assert components["messages"]["price"]["payload"] == {"$ref": "#/components/schemas/price.Order"}
    assert components["schemas"]["price.Order"]["properties"]["lines"]["items"] == {
        "$ref": "#/components/schemas/price.Line"
    }
    assert components["messages"]["keep_it"] == {"name": "keep_it", "contentType": "application/octet-stream"}
    assert components["messages"]["bill"]["payload"] == {"type": "string"}


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    discriminator: str


class Pets(msgspec.Struct):
    pets: list[Cat | Dog]


def test_every_reference_of_a_document_leads_somewhere() -> None:
    found = shop(Pets)
    references = set(re.findall(r'"(#/[^"]+)"', json.dumps(found)))
    assert "#/components/schemas/price.Cat" in references
    for reference in references:
        part = found
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    assert "discriminator" in found["components"]["schemas"]["price.Dog"]["properties"]


def test_a_change_is_told_for_messages_that_wait_and_for_workers_that_are_still_there() -> None:
    old = shop(Order)
    assert list(changes(old, shop(Order))) == []
    assert [str(change) for change in changes(old, shop(Longer))] == [
        "stage 'price': new workers can't read messages of old programs: $.name: is not there, and has no default "
        "where it is read"
    ]
    assert [str(change) for change in changes(shop(Longer), old)] == [
        "stage 'price': old workers can't read messages of new programs: $.name: is not there, and has no default "
        "where it is read"
    ]
    assert [(change.stage, change.what) for change in changes(old, shop(Order, queue="other", is_last=True))] == [
        ("price", "left"),
        ("keep_it", "left"),
    ]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": 5}, "type"),
        ({"anyOf": {"a": 1}}, "anyOf"),
        ({"properties": [1]}, "properties"),
        ({"properties": {"a": {"required": 3}}}, "properties[...].required"),
        ({"prefixItems": 5}, "prefixItems"),
        ({"minimum": "1"}, "minimum"),
    ],
)
def test_a_document_with_a_malformed_schema_is_refused_with_its_place(schema: dict[str, object], place: str) -> None:
    messages = {"price": {"payload": schema}}
    for components in ({"messages": messages}, {"messages": {}, "schemas": {"Order": schema}}):
        with pytest.raises(rabbitry.UsageError, match=r"'shop\.json' is no document") as caught:
            check_document({"operations": {}, "components": components}, "shop.json")
        assert place in str(caught.value)


_APP = """
import msgspec, rabbitry
app = rabbitry.App("versions")
class Order(msgspec.Struct):
    article: str
    {field}
@app.stage("order")
def take(order: Order) -> None: ...
"""


def test_old_workers_leave_messages_of_a_version_that_has_risen_to_new_ones() -> None:
    def version_of(type_: type[object], version: int) -> dict[str, Any]:
        app = rabbitry.App("risen")
        key = app.key("in", type_, version=version)

        def take(value: bytes) -> None: ...

        take.__annotations__["value"] = type_
        app.stage(key)(take)
        return document(app.spec())

    old, new = version_of(int, 1), version_of(str, 1)
    assert [change.what for change in changes(old, new)] == ["waiting", "rolling"]
    risen = version_of(str, 2)
    assert [change.what for change in changes(old, risen)] == ["waiting"]
    check_document(risen, "the new one")


def test_two_versions_are_compared_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def version(field: str) -> None:
        (tmp_path / "versions.py").write_text(_APP.format(field=field))

    version("")
    exported = commands.run("schema", "export", "versions:app")
    (tmp_path / "old.json").write_text(exported.stdout)
    version("amount: int = 1")
    same = commands.run("schema", "check", "old.json", "versions:app")
    assert (same.returncode, same.stdout, same.stderr) == (
        0,
        "",
        "rabbitry: each version reads the messages of the other\n",
    )
    version("amount: int  # is new, and has no default")
    worse = commands.run("schema", "check", "old.json", "versions:app", "--json")
    assert (worse.returncode, [json.loads(line)["what"] for line in worse.stdout.splitlines()]) == (1, ["waiting"])
    (tmp_path / "none.json").write_text('{"operations": 5}')
    long = "a" * 5000
    for source, text in (
        ("away.json", "can't read 'away.json'"),
        ("none.json", "'none.json' is no document"),
        (long, "File name too long"),
        (f"{long}:app", "does not import"),
    ):
        wrong = commands.run("schema", "check", source, "versions:app")
        assert (wrong.returncode, text in wrong.stderr, wrong.stderr.count("\n")) == (2, True, 1), wrong.stderr
