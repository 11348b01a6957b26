"""Bodies: decoded by the type that a handler asks for, encoded by the type of what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import msgspec

from rabbitry._decode import decode_text, json_decoder
from rabbitry.exceptions import Undecodable

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON: Final = "application/json"
TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"
LONGEST_SCHEMA: Final = 32_768
"""Bytes of a JSON Schema that a worker announces."""

_logger = logging.getLogger(__name__)

_decode_object = json_decoder(dict[str, msgspec.Raw])


def _plain_text(value: object) -> str:
    """Return a value of a subclass of `str` as text, also within other values."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")  # msgspec's, without a hook


_encoder = msgspec.json.Encoder(enc_hook=_plain_text)


class Encoded(NamedTuple):
    """A body with its content type, and the name of the type it was made from."""

    body: bytes
    content_type: str
    type_name: str


def encode(value: object) -> Encoded:
    """Encode a value.

    Raises:
        TypeError: The value is neither bytes, text, a model nor plain JSON data.
    """
    name = type(value).__name__
    if isinstance(value, bytes | bytearray):
        return Encoded(bytes(value), BYTES, name)
    if isinstance(value, str):
        return Encoded(value.encode(), TEXT, name)
    if not isinstance(value, msgspec.Struct) and _is_model(type(value)):
        model: BaseModel = value  # type: ignore[assignment] # _is_model said so
        return Encoded(model.model_dump_json(by_alias=True).encode(), JSON, name)
    return Encoded(_encoder.encode(value), JSON, name)


def with_unknown(encoded: Encoded, unknown: dict[str, msgspec.Raw]) -> Encoded:
    """Add the input's fields that the handler's type does not know. A body that is no JSON object stays as it is."""
    if encoded.content_type != JSON or not encoded.body.startswith(b"{"):
        return encoded
    return encoded._replace(body=_encoder.encode(unknown | _decode_object(encoded.body)))


class Codec:
    """Decodes bodies to one type.

    Raises TypeError at once for a type that no JSON document can be decoded to.

    `encode` makes text of a `str` and bytes of `bytes`, and JSON of all other values. A type whose values are all text,
    such as `Literal["a", "b"]`, is therefore read from text. If only some are, as those of `str | int`, the content
    type decides.
    """

    def __init__(self, type_: object) -> None:
        self.type = type_
        self.needs_content_type: bool = False
        """Whether the content type decides how a body is read."""
        self.decode_body: Callable[[bytes], object] = self._made(type_)
        self._known = _known_fields(type_)

    def _made(self, type_: object) -> Callable[[bytes], object]:
        forms = _forms(type_)
        self.is_text: bool = forms == {TEXT}
        """Whether all values are text, and the bodies too."""
        self._by_content_type: dict[str, Callable[[bytes], object]] = {}
        if forms == {JSON}:
            return _json_decoder(type_)
        raw = {TEXT: partial(_from_text, type_), BYTES: partial(_from_bytes, type_)}
        if forms <= {TEXT}:
            return decode_text if type_ is str else raw[TEXT]
        if forms <= {BYTES}:
            return bytes if type_ is bytes else raw[BYTES]
        self.needs_content_type = True
        self._by_content_type = {form: raw[form] for form in forms if form in raw}
        return _json_decoder(type_)

    def decode(self, body: bytes, content_type: str | None = None) -> object:
        """Return the value. Raises Undecodable, which names the field.

        Args:
            body: The body.
            content_type: The message's, if `needs_content_type`; otherwise it is ignored.
        """
        if self.needs_content_type:
            return self._by_content_type.get(_bare(content_type), self.decode_body)(body)
        return self.decode_body(body)

    def kept(self, body: bytes, content_type: str | None) -> bytes:
        """Return the body as it can be kept without its message; see `restored`. Raises Undecodable."""
        self.decode(body, content_type)
        if not self.needs_content_type:
            return body
        form = _bare(content_type)
        return f"{form if form in self._by_content_type else JSON}\n".encode() + body

    def restored(self, kept: bytes) -> object:
        """Return the value of a body that `kept` returned."""
        if not self.needs_content_type:
            return self.decode_body(kept)
        content_type, _, body = kept.partition(b"\n")
        return self.decode(body, content_type.decode())

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of the bodies, with contentMediaType if they are not JSON; None if there is no schema.

        A schema of more than LONGEST_SCHEMA bytes counts as none. A pydantic model may accept bodies that its schema
        does not, such as "1" for a number.
        """
        if self.type is bytes:
            return {"contentMediaType": BYTES}
        if self.type is str:
            return {"type": "string", "contentMediaType": TEXT}
        media = {"contentMediaType": TEXT} if self.is_text else {}
        try:
            if _is_model(self.type):
                found: dict[str, Any] = self.type.model_json_schema()
            else:
                found = msgspec.json.schema(self.type, schema_hook=_schema_hook) | media
            return found if len(_encoder.encode(found)) <= LONGEST_SCHEMA else None
        except Exception as error:  # noqa: BLE001 - a model's own hooks may raise anything, and the worker goes on
            _logger.debug("no JSON schema of %r: %r", self.type, error)
            return None

    def unknown(self, body: bytes) -> dict[str, msgspec.Raw]:
        """Return the fields of a JSON object that the type does not know, as they came."""
        try:
            fields = _decode_object(body)
        except Undecodable:
            return {}
        return {name: raw for name, raw in fields.items() if name not in self._known}


def _bare(content_type: str | None) -> str:
    """Return a content type without its parameters, such as the charset."""
    return (content_type or "").partition(";")[0].strip().lower()


def _forms(type_: object) -> set[str]:
    """Return the content types that `encode` gives the values of a type."""
    if _is_model(type_):
        return {JSON}
    info = msgspec.inspect.type_info(type_)
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return set().union(*map(_forms_of, kinds))


def _forms_of(info: msgspec.inspect.Type) -> set[str]:
    match info:
        case msgspec.inspect.StrType():
            return {TEXT}
        case msgspec.inspect.BytesType() | msgspec.inspect.ByteArrayType():
            return {BYTES}
        case msgspec.inspect.LiteralType(values=values):
            return {TEXT if isinstance(value, str) else JSON for value in values}
        case msgspec.inspect.EnumType(cls=kind) | msgspec.inspect.CustomType(cls=kind) if issubclass(kind, str):
            return {TEXT}
        case msgspec.inspect.AnyType() | msgspec.inspect.CustomType():  # of `object`, as `_json_decoder` checks
            return {TEXT, BYTES, JSON}
    return {JSON}


def _from_text(type_: Any, body: bytes) -> object:
    """Decode text to a type. JSON is read too where it is no text of this type: others may send `"a"`."""
    text = decode_text(body)
    try:
        return msgspec.convert(text, type_, dec_hook=_from_json)
    except msgspec.ValidationError as error:
        with contextlib.suppress(Undecodable):
            if text.startswith('"'):
                return json_decoder(type_, _from_json)(body)
        raise Undecodable(str(error)) from error


def _from_bytes(type_: Any, body: bytes) -> object:
    if type_ is bytearray:
        return bytearray(body)
    try:
        return msgspec.convert(body, type_, dec_hook=_from_json)
    except msgspec.ValidationError as error:
        raise Undecodable(str(error)) from error


def _json_decoder(type_: object) -> Callable[[bytes], object]:
    if _is_model(type_):
        return _model_decoder(type_)
    for part in _parts(msgspec.inspect.type_info(type_)):
        if isinstance(part, msgspec.inspect.CustomType) and part.cls is not object and not issubclass(part.cls, str):
            raise TypeError(f"{part.cls!r} can't be decoded from JSON")
    decode: Callable[[bytes], object] = json_decoder(type_, _from_json)  # type: ignore[arg-type] # any annotation
    return decode


def _schema_hook(type_: type) -> dict[str, Any]:
    """Return the schema of `object`, which is any JSON value, and of a subclass of `str`."""
    if issubclass(type_, str):
        return {"type": "string"}
    if type_ is not object:
        raise NotImplementedError
    return {"title": "any value"}  # msgspec takes an empty one for none


def _from_json(type_: type, value: object) -> object:
    """Return any JSON value where a type says `object`, and an object of a subclass of `str`."""
    if type_ is object:
        return value
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return type_(value)


def _is_model(type_: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(type_, type) and hasattr(type_, "model_validate_json") and hasattr(type_, "model_fields")


def _model_decoder(type_: type[BaseModel]) -> Callable[[bytes], object]:
    from pydantic import ValidationError

    def decode(body: bytes) -> object:
        try:
            return type_.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in ("$", *first["loc"]))
            raise Undecodable(f"{first['msg']} - at `{where}`") from error

    return decode


def _parts(info: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """Return a type and those within it, each once (a type may hold itself)."""
    seen: set[int] = set()
    waiting: list[object] = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple | list):
            waiting.extend(part)
        elif isinstance(part, msgspec.inspect.Field):
            waiting.append(part.type)
        elif isinstance(part, msgspec.inspect.Type) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting.extend(getattr(part, name) for name in part.__struct_fields__ if name not in ("cls", "default"))


def _known_fields(type_: object) -> frozenset[str]:
    if _is_model(type_):
        names = {alias for field in type_.model_fields.values() if (alias := field.alias)}
        return frozenset(names | set(type_.model_fields))
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return frozenset(field.encode_name for field in msgspec.structs.fields(type_))
    if dataclasses.is_dataclass(type_):
        return frozenset(field.name for field in dataclasses.fields(type_))
    return frozenset()
