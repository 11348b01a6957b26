"""The messages of an app as an AsyncAPI document, and the changes of it that programs of another version can't read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from rabbitry._decode import json_decoder
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.flow._compatible import gaps
from rabbitry.flow.codec import BYTES, JSON, Codec

if TYPE_CHECKING:
    from rabbitry.flow.spec import AppSpec
    from rabbitry.flow.stage import Output, Stage

VERSION: Final = "3.0.0"
"""The version of AsyncAPI (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""
QUEUE: Final = "x-rabbitry-queue"
VERSION_OF_TYPE: Final = "x-rabbitry-version"
"""The member of a message with the version of its type, if that is above 1; see `Key`."""
_BINDING: Final = "0.3.0"
"""The version of AsyncAPI's AMQP bindings."""
_DEFS: Final = "#/$defs/"
_ODD: Final = re.compile(r"[^\w.-]", re.ASCII)


class Change(NamedTuple):
    """A change after which programs of one version can't read messages of the other.

    stage: the stage's name. what: `waiting` if new workers can't read what old programs published, `rolling` if old
    workers can't read what new programs publish, `left` if the new app leaves messages of the old one where they are.
    text: what can't be read, and where it is in the message.
    """

    stage: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"stage '{self.stage}': {_SAYS[self.what]}: {self.text}"


_SAYS: Final = {
    "waiting": "new workers can't read messages of old programs",
    "rolling": "old workers can't read messages of new programs",
    "left": "messages stay where they are",
}


def document(spec: AppSpec) -> dict[str, Any]:
    """Return the AsyncAPI document of an app, as JSON: its stages receive, and its outputs are sent.

    Each routing key is a channel, and the type of a stage's messages is the schema of their payload.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for stage in spec.stages.values():
        name = _name(stage.name, operations)
        messages[name] = _message(name, stage.value_codec, schemas) | _version(spec, stage.key)
        operations[name] = _operation("receive", _channel(channels, spec, stage, name), name) | {QUEUE: stage.queue}
    for key, output in spec.outputs.items():
        name = _name(key, operations)
        typed = spec.types.get(key)
        messages[name] = {"name": name} if typed is None else _message(name, Codec(typed.type), schemas)
        messages[name] |= _version(spec, key)
        operations[name] = _operation("send", _channel(channels, spec, output, name), name)
        if output.queue is not None:
            operations[name][QUEUE] = output.queue
    return {
        "asyncapi": VERSION,
        "info": {"title": spec.name, "version": "1.0.0"},
        "defaultContentType": JSON,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compare two documents of an app, and return what programs of one version can't read of the other.

    A field that is new needs a default, and one that is no longer there must have had one: then either version reads
    the messages of the other. An unknown field is ignored, unless the type forbids it. If the version of a type has
    risen, old workers leave its messages to new ones.
    """
    mine, others = _received(old), _received(new)
    for name, operation in mine.items():
        queue = operation.get(QUEUE)
        other = others.get(name)
        if other is None:
            yield Change(name, "left", f"the stage is gone, and no worker takes what waits in queue '{queue}'")
            continue
        if queue != other.get(QUEUE):
            yield Change(name, "left", f"no worker takes what waits in queue '{queue}': it is '{other.get(QUEUE)}' now")
        was, will = _payload(old, name), _payload(new, name)
        for gap in gaps(was, old, will, new):
            yield Change(name, "waiting", gap)
        if _version_in(new, name) > _version_in(old, name):
            continue  # old workers leave them to new ones
        for gap in gaps(will, new, was, old):
            yield Change(name, "rolling", gap)


def check_document(found: object, source: str) -> None:
    """Raise UsageError for a document that `changes` can't compare. source: where it is from."""
    try:
        _decode(msgspec.json.encode(found))
    except Undecodable as error:
        raise UsageError(f"'{source}' is no document of `rabbitry schema export`: {error}") from error


class _Schema(msgspec.Struct, rename="camel"):
    """The members of a JSON Schema by which two are compared."""

    type: str | list[str] | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    any_of: list[_Schema | bool] | UnsetType = UNSET
    one_of: list[_Schema | bool] | UnsetType = UNSET
    properties: dict[str, _Schema | bool] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    additional_properties: _Schema | bool | UnsetType = UNSET
    prefix_items: list[_Schema | bool] | UnsetType = UNSET
    items: _Schema | bool | UnsetType = UNSET
    minimum: float | UnsetType = UNSET
    maximum: float | UnsetType = UNSET
    exclusive_minimum: float | UnsetType = UNSET
    exclusive_maximum: float | UnsetType = UNSET
    min_length: float | UnsetType = UNSET
    max_length: float | UnsetType = UNSET
    min_items: float | UnsetType = UNSET
    max_items: float | UnsetType = UNSET
    min_properties: float | UnsetType = UNSET
    max_properties: float | UnsetType = UNSET


class _Operation(msgspec.Struct):
    action: str
    queue: str | None = msgspec.field(default=None, name=QUEUE)


class _Message(msgspec.Struct):
    contentType: str = JSON  # noqa: N815 - AsyncAPI's name
    version: int = msgspec.field(default=1, name=VERSION_OF_TYPE)
    payload: _Schema | UnsetType = UNSET


class _Components(msgspec.Struct):
    messages: dict[str, _Message]
    schemas: dict[str, _Schema | bool] = {}


class _Document(msgspec.Struct):
    operations: dict[str, _Operation]
    components: _Components


_decode: Final = json_decoder(_Document)


def _received(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: each for name, each in document["operations"].items() if each["action"] == "receive"}


def _payload(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the schema of an operation's messages, with their media type if they are not JSON."""
    message: dict[str, Any] = document["components"]["messages"].get(name, {})
    media = message.get("contentType", JSON)
    payload: dict[str, Any] = message.get("payload", {})
    return payload | ({} if media == JSON else {"contentMediaType": media})


def _version(spec: AppSpec, key: str) -> dict[str, Any]:
    version = spec.version_of(key)
    return {VERSION_OF_TYPE: version} if version > 1 else {}


def _version_in(document: Mapping[str, Any], name: str) -> int:
    """Return the version of the type of an operation's messages."""
    found: int = document["components"]["messages"].get(name, {}).get(VERSION_OF_TYPE, 1)
    return found


def _name(text: str, taken: Mapping[str, object]) -> str:
    """Return text as a name that AsyncAPI allows and that is not taken."""
    name = free = _ODD.sub("_", text) or "_"
    number = 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _channel(channels: dict[str, Any], spec: AppSpec, item: Stage | Output, message: str) -> str:
    """Add a message to the channel of a routing key, and return the channel's name."""
    exchange = item.exchange or spec.exchange
    name = next(
        (
            name
            for name, each in channels.items()
            if (each["address"], each["bindings"]["amqp"]["exchange"]["name"]) == (item.key, exchange)
        ),
        None,
    )
    if name is None:
        name = _name(item.key, channels)
        channels[name] = {
            "address": item.key,
            "messages": {},
            "bindings": {
                "amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": exchange,
                        "type": "direct" if item.exchange else spec.exchange_type,
                        "durable": not spec.plain or item.exchange is not None,
                        "autoDelete": spec.plain and exchange in spec.auto_delete,
                    },
                    "bindingVersion": _BINDING,
                }
            },
        }
    channels[name]["messages"][message] = {"$ref": f"#/components/messages/{message}"}
    return name


def _message(name: str, codec: Codec, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a message, and add the schemas that its own refers to; they get the message's name before their own."""
    schema = codec.schema()
    if schema is None:
        return {"name": name, "contentType": JSON}
    media = schema.get("contentMediaType", JSON)
    if media == BYTES:
        return {"name": name, "contentType": media}
    prefix = f"#/components/schemas/{name}."
    for own, part in schema.get("$defs", {}).items():
        schemas[f"{name}.{_ODD.sub('_', own)}"] = _moved(part, prefix)
    payload = {key: value for key, value in schema.items() if key not in ("$defs", "contentMediaType")}
    return {"name": name, "contentType": media, "payload": _moved(payload, prefix)}


def _moved(part: Any, prefix: str) -> Any:
    """Return a part of a schema whose references lead to the document's components."""
    if isinstance(part, list):
        return [_moved(each, prefix) for each in part]
    if not isinstance(part, dict):
        return part
    # OpenAPI's discriminator repeats what `const` or `enum` says in each alternative; AsyncAPI has it in another form.
    left_out = "discriminator" if "anyOf" in part or "oneOf" in part else None
    moved = {key: _moved(value, prefix) for key, value in part.items() if key != left_out}
    if isinstance(reference := part.get("$ref"), str) and reference.startswith(_DEFS):
        moved["$ref"] = prefix + _ODD.sub("_", reference.removeprefix(_DEFS))
    return moved
