"""Every method, compared with pamqp, and invalid bytes."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import base, commands

from rabbitry.amqp.protocol import _seldom, methods
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.layouts import BY_SIGNATURE, BY_TYPE, Layout
from rabbitry.amqp.protocol.methods import BasicAck, Method, QueueDeclare, method_name
from rabbitry.exceptions import ProtocolViolation, UsageError
from tests.amqp.protocol import strategies

_TYPES = {
    "octet": "o", "short": "h", "long": "l", "longlong": "q", "shortstr": "s", "longstr": "S", "bit": "b", "table": "t",
}  # fmt: skip
_RESERVED = {"0": "h", "1": "s", "2": "b", "3": "S"}
_VALUES = {
    "o": st.integers(0, 255),
    "h": st.integers(0, 2**16 - 1),
    "l": st.integers(0, 2**32 - 1),
    "q": st.integers(0, 2**64 - 1),
    "s": strategies.names,
    "S": st.binary(max_size=300),
    "b": st.booleans(),
    "t": strategies.tables,
}
_PAMQPS_VALUES = _VALUES | {
    # pamqp treats a long long as signed and a long string as UTF-8; tables are limited to those that both encode alike.
    "q": st.integers(0, 2**63 - 1),
    "S": st.text(max_size=50).map(str.encode),
    "t": strategies.plain_tables.map(lambda table: dict(sorted(table.items()))),
}
_RESERVED_VALUES = {"0": 0, "1": "", "2": False, "3": ""}
_BEYOND_PAMQP = {(30, 10), (30, 11)}  # access.request, which RabbitMQ still answers


@st.composite
def _methods(draw: st.DrawFn) -> Method:
    layout = BY_SIGNATURE[draw(st.sampled_from(sorted(BY_SIGNATURE)))]
    method: Method = layout.make(*(draw(_VALUES[letter]) for letter in layout.letters if letter not in _RESERVED))
    return method


@given(_methods())
def test_methods_survive_encoding_and_decoding(method: Method) -> None:
    encoded = encode_method(method)
    assert decode_method(encoded) == method
    assert encode_method(decode_method(encoded)) == encoded


@pytest.mark.parametrize("layout", BY_SIGNATURE.values(), ids=lambda layout: layout.make.__name__)
def test_ids_and_layouts_equal_pamqps(layout: Layout) -> None:
    known: type[base.Frame] | None = commands.INDEX_MAPPING.get(layout.signature)
    if known is None:
        assert (layout.class_id, layout.method_id) in _BEYOND_PAMQP
        return
    theirs = "".join(_TYPES[known.amqp_type(attribute)] for attribute in known.attributes())
    ours = "".join(_RESERVED.get(letter, letter) for letter in layout.letters)
    assert ours == theirs
    assert known.name.replace(".", "") == layout.make.__name__


@given(st.data())
def test_encoded_methods_equal_pamqps(data: st.DataObject) -> None:
    layout = BY_SIGNATURE[data.draw(st.sampled_from(sorted(commands.INDEX_MAPPING)))]
    known: type[base.Frame] = commands.INDEX_MAPPING[layout.signature]
    drawn = [data.draw(_PAMQPS_VALUES[letter]) for letter in layout.letters if letter not in _RESERVED]
    values = iter([value.decode() if isinstance(value, bytes) else value for value in drawn])
    frame = known.__new__(known)
    for attribute, letter in zip(known.attributes(), layout.letters, strict=True):
        setattr(frame, attribute, _RESERVED_VALUES[letter] if letter in _RESERVED else next(values))
    encoded = encode_method(layout.make(*drawn))
    with mock.patch.object(known, "validate"):  # it refuses names that RabbitMQ accepts
        assert encoded[4:] == frame.marshal()

    again = known.__new__(known)
    again.unmarshal(encoded[4:])
    read = [
        value.encode() if letter == "S" and isinstance(value, str) else value
        for value, letter in zip((getattr(again, name) for name in known.attributes()), layout.letters, strict=True)
        if letter not in _RESERVED
    ]
    assert layout.make(*read) == decode_method(encoded)


def test_all_methods_of_pamqp_are_implemented() -> None:
    assert set(commands.INDEX_MAPPING) <= set(BY_SIGNATURE)


@given(st.binary(max_size=60))
def test_invalid_method_bytes_are_a_violation(payload: bytes) -> None:
    try:
        method = decode_method(payload)
    except ProtocolViolation as violation:
        assert violation.reply_code in (501, 502, 540)  # noqa: PT017 - either outcome is right
    else:
        assert type(method) in BY_TYPE


@given(_methods(), st.data())
def test_a_method_that_is_cut_short_or_too_long_is_a_violation(method: Method, draw: st.DataObject) -> None:
    encoded = encode_method(method)
    with pytest.raises(ProtocolViolation):
        decode_method(encoded + b"\x00")
    if len(encoded) > 4:
        with pytest.raises(ProtocolViolation):
            decode_method(encoded[: draw.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize("method", [BasicAck(-1), BasicAck(2**64), QueueDeclare("q" * 256), BasicAck("x")])  # type: ignore[arg-type] # on purpose
def test_values_that_do_not_fit_raise_a_usage_error(method: Method) -> None:
    with pytest.raises(UsageError):
        encode_method(method)


def test_names_equal_the_specifications() -> None:
    assert method_name(60, 100) == "basic.recover-async"
    assert method_name(85, 11) == "confirm.select-ok"
    assert method_name(99, 1) == "99.1"


def test_methods_that_few_clients_send_are_imported_like_all_others() -> None:
    assert methods.QueuePurge is _seldom.QueuePurge
    with pytest.raises(AttributeError, match="QueuePrune"):
        getattr(methods, "QueuePrune")  # noqa: B009 - type checkers know that there is none
