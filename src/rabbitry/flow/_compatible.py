"""Whether every message of one JSON Schema can be read with another one, for the schemas that types have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from rabbitry.flow.codec import BYTES

Schema: TypeAlias = Mapping[str, Any]

_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EQUAL: Final = ("pattern", "format", "multipleOf", "contentEncoding")
_NAMES: Final = {"null": "null", "boolean": "true or false", "integer": "a whole number", "number": "a number",
                 "string": "text", "array": "a list", "object": "an object"}  # fmt: skip


def gaps(writer: Schema, of_writer: Schema, reader: Schema, of_reader: Schema) -> list[str]:
    """Return what of the writer's messages the reader does not take, in words, each with its place in the message.

    Args:
        writer: The schema of the messages that are written.
        of_writer: The document that the writer's references lead to.
        reader: The schema that they are read with.
        of_reader: The document that the reader's references lead to.
    """
    if reader.get("contentMediaType") == BYTES:
        return []
    if writer.get("contentMediaType") != reader.get("contentMediaType"):
        medias = [schema.get("contentMediaType", "application/json") for schema in (writer, reader)]
        return [f"they are {medias[0]}, and {medias[1]} is read"]
    return list(dict.fromkeys(_Comparison(of_writer, of_reader).between(writer, reader, "$")))


class _Comparison:
    """The comparison of two documents. A pair that is being compared is taken for compatible, for types in circles."""

    def __init__(self, of_writer: Schema, of_reader: Schema) -> None:
        self._of_writer = of_writer
        self._of_reader = of_reader
        self._found: dict[tuple[str, str], list[str]] = {}
        """The gaps of pairs of schemas that were compared before, with the place where they were first."""

    def between(self, writer: Any, reader: Any, place: str) -> list[str]:
        """Return the gaps between two schemas at a place."""
        pair = (json.dumps(writer, sort_keys=True), json.dumps(reader, sort_keys=True))
        if pair not in self._found:
            self._found[pair] = []
            self._found[pair] = list(self._compare(writer, reader, place))
        return self._found[pair]

    def _compare(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        written, read = _resolved(writer, self._of_writer), _resolved(reader, self._of_reader)
        if not written.keys() - _WORDS and not read.keys() - _WORDS:
            return
        alternatives = _alternatives(written)
        if len(alternatives) > 1:
            for each in alternatives:
                yield from self.between(each, read, place)
            return
        readers = _alternatives(read)
        if len(readers) > 1:
            if all(self.between(alternatives[0], each, place) for each in readers):
                yield f"{place}: {_shown(_resolved(alternatives[0], self._of_writer))} is none of what is read there"
            return
        yield from self._single(
            _resolved(alternatives[0], self._of_writer), _resolved(readers[0], self._of_reader), place
        )

    def _single(self, writer: Schema, reader: Schema, place: str) -> Iterator[str]:
        """Return the gaps between schemas without alternatives."""
        allowed = _values(reader)
        if allowed is not None:
            values = _values(writer)
            if values is None:
                yield f"{place}: {_shown(writer)} may have any value, and only {_listed(allowed)} is read"
            elif odd := [value for value in values if value not in allowed]:
                yield f"{place}: {_listed(odd)} is not read"
            return
        types, read = _types(writer), _types(reader)
        if read and not types <= (read | ({"integer"} if "number" in read else set())):
            yield f"{place}: {_shown(writer)} is not read, but {_shown(reader)}"
            return
        yield from _bounds(writer, reader, place)
        if "object" in types:
            yield from self._objects(writer, reader, place)
        if "array" in types:
            yield from self._lists(writer, reader, place)

    def _objects(self, writer: Schema, reader: Schema, place: str) -> Iterator[str]:
        written, read = writer.get("properties", {}), reader.get("properties", {})
        sure = set(writer.get("required", ()))
        for name in reader.get("required", ()):
            if name not in sure:
                missing = "is not always there" if name in written else "is not there"
                yield f"{place}.{name}: {missing}, and has no default where it is read"
        # A writer's type without named fields is a dict, which may have any.
        more = writer.get("additionalProperties", False if written else {})
        others = reader.get("additionalProperties", True)
        for name, schema in written.items():
            if name in read:
                yield from self.between(schema, read[name], f"{place}.{name}")
            elif others is False:
                yield f"{place}.{name}: unknown fields are refused"
            elif isinstance(others, dict):
                yield from self.between(schema, others, f"{place}.{name}")
        if more is not False:
            for name, schema in read.items():
                if name not in written:
                    yield from self.between(more, schema, f"{place}.{name}")
            if others is False:
                yield f"{place}[…]: unknown fields are refused"
            elif isinstance(others, dict):
                yield from self.between(more, others, f"{place}[…]")

    def _lists(self, writer: Schema, reader: Schema, place: str) -> Iterator[str]:
        first, second = (schema.get("prefixItems", []) for schema in (writer, reader))
        rest, others = (schema.get("items", {}) for schema in (writer, reader))
        for number in range(max(len(first), len(second))):
            written = first[number] if number < len(first) else rest
            read = second[number] if number < len(second) else others
            if isinstance(written, dict) and isinstance(read, dict):  # False: there is no such member; see minItems
                yield from self.between(written, read, f"{place}[{number}]")
        if isinstance(rest, dict) and isinstance(others, dict):
            yield from self.between(rest, others, f"{place}[]")


_WORDS: Final = frozenset({"title", "description", "examples", "default", "deprecated", "discriminator"})
"""Members of a schema that say nothing of what is valid."""


def _resolved(schema: Any, document: Schema) -> dict[str, Any]:
    """Return a schema, or the one that it refers to; True is the schema of everything."""
    found: Any = schema
    for _ in range(100):
        if not isinstance(found, dict):
            return {}
        reference = found.get("$ref")
        if not isinstance(reference, str):
            return found
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        found = target
    return {}


def _alternatives(schema: Schema) -> list[Any]:
    """Return the schemas of which a value has one."""
    found: list[Any] = schema.get("anyOf") or schema.get("oneOf") or []
    if found:
        return found
    types = schema.get("type")
    return [{**schema, "type": each} for each in types] if isinstance(types, list) and len(types) > 1 else [schema]


def _values(schema: Schema) -> list[Any] | None:
    """Return all values that a schema allows; None if they are not named."""
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return [None] if found is None and schema.get("type") == "null" else found


def _types(schema: Schema) -> set[str]:
    types = schema.get("type")
    if types is None and (values := schema.get("enum") or ([schema["const"]] if "const" in schema else None)):
        return {_TYPES.get(type(value), "object") for value in values}
    return {types} if isinstance(types, str) else set(types or _NAMES)


_TYPES: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
}


def _bounds(writer: Schema, reader: Schema, place: str) -> Iterator[str]:
    for name in (*_LEAST, *_MOST):
        limit, own = reader.get(name), writer.get(name)
        if limit is not None and (own is None or (own < limit if name in _LEAST else own > limit)):
            yield f"{place}: {name} is {'not given' if own is None else own}, and {limit} where it is read"
    for name in _EQUAL:
        if reader.get(name) is not None and reader[name] != writer.get(name):
            yield f"{place}: {name} {writer.get(name, 'is not given')}, and {reader[name]} where it is read"


def _shown(schema: Schema) -> str:
    types = _types(schema)
    return "anything" if len(types) == len(_NAMES) else " or ".join(_NAMES[each] for each in sorted(types))


def _listed(values: list[Any]) -> str:
    return ", ".join(json.dumps(value) for value in values[:5]) + (", …" if len(values) > 5 else "")
