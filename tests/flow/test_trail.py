"""What is read and written as bytes means the same as what is read and written by name."""

import time
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.client import Delivery, Properties
from rabbitry.amqp.protocol.properties import CONTENT_HEADER, EncodedProperties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import ProtocolViolation, UsageError
from rabbitry.flow import _trail
from rabbitry.flow._tracing import TRACEPARENT, TRACESTATE
from rabbitry.flow.codec import BYTES, JSON, TEXT
from rabbitry.flow.message import ATTEMPT, WAIT, first_properties, with_given

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Delivered:
    """As much of a delivery as is read."""

    def __init__(self, header: bytes) -> None:
        self.header = header

    @property
    def properties(self) -> Properties:
        return decode_header(self.header)


def _delivery(header: bytes) -> Delivery:
    return cast("Delivery", _Delivered(header))


def _with_id(encoded: EncodedProperties) -> bytes:
    """Return the content header that the client makes."""
    return CONTENT_HEADER.pack(60, 0, 7, encoded.flags) + encoded.before + b"\x02id" + encoded.after


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a message was read by name."""
    calls: list[object] = []
    plain = _trail._read_by_name

    def count(delivery: Delivery) -> _trail.Trail:
        calls.append(delivery)
        return plain(delivery)

    monkeypatch.setattr(_trail, "_read_by_name", count)
    return lambda: len(calls)


TRACED = {ATTEMPT: 1, TRACEPARENT: TRACE}
FIELDS = _trail.trace_fields({TRACEPARENT: TRACE})


@pytest.mark.parametrize("content_type", [JSON, TEXT, BYTES])
@pytest.mark.parametrize("headers", [None, {TRACEPARENT: TRACE}])
def test_headers_of_stages_and_publishers_are_read_as_bytes(
    content_type: str, headers: dict[str, str] | None, by_name: Callable[[], int]
) -> None:
    first = _trail.read(_delivery(encode_header(first_properties("app", content_type, "Item", headers), 7)))
    following = _trail.read(_delivery(_with_id(_trail.next_properties("app", first, content_type, "Item"))))
    assert by_name() == 0
    assert following == first
    assert following.trace == (FIELDS if headers else b"")


@pytest.mark.parametrize(
    "headers",
    [
        {TRACEPARENT: TRACE},
        {TRACEPARENT: TRACE, TRACESTATE: "vendor=1"},
        {TRACEPARENT: "01-" + "x" * 300},
        {TRACEPARENT: ""},
        {},
    ],
)
@pytest.mark.parametrize("correlation", [b"c", b""])
def test_headers_written_as_bytes_are_correct(headers: dict[str, str], correlation: bytes) -> None:
    cause = _trail.Trail(3, 0.0, correlation, _trail.trace_fields(headers))
    encoded = _trail.next_properties("app", cause, JSON, "Item")
    properties = decode_header(_with_id(encoded))
    assert properties == encoded.decoded()._replace(message_id="id")
    assert properties.headers == {ATTEMPT: 1, **headers}
    assert properties.correlation_id == (correlation.decode() or None)
    assert (properties.content_type, properties.delivery_mode) == (JSON, 2)
    assert (properties.type, properties.app_id) == ("Item", "app")
    assert abs(properties.timestamp.timestamp() - time.time()) < 60  # type: ignore[union-attr] # it is there
    assert _trail.read(_delivery(_with_id(encoded))).trace == cause.trace


def test_the_trace_context_of_a_handler_goes_before_that_of_its_message() -> None:
    cause = _trail.Trail(1, 0.0, b"c", FIELDS)
    other = {TRACEPARENT: TRACE.replace("b7ad", "ffff"), TRACESTATE: "v=2"}
    encoded = _trail.next_properties("app", cause, JSON, "Item", _trail.trace_fields(other))
    assert decode_header(_with_id(encoded)).headers == {ATTEMPT: 1, **other}


@pytest.mark.parametrize(
    "headers",
    [{TRACEPARENT: 1}, {TRACESTATE: "v=1"}, {TRACEPARENT: b"00"}, {TRACEPARENT: "x" * 513}, {TRACEPARENT: [TRACE]}],
)
def test_an_invalid_trace_context_is_not_passed_on(headers: Table) -> None:
    assert _trail.read(_delivery(encode_header(Properties(headers=headers), 7))).trace == b""


def test_only_the_end_of_a_long_type_name_is_cut() -> None:
    encoded = _trail.next_properties("app", _trail.Trail(1, 0.0, b"c", b""), JSON, "Ü" * 300)
    assert decode_header(_with_id(encoded)).type == "Ü" * 60


@pytest.mark.parametrize(
    "properties",
    [
        Properties(),
        Properties(message_id="m", headers={}),
        Properties(correlation_id="\udcff", headers={ATTEMPT: 4, WAIT: 2.5}),
        first_properties("app", JSON, "Item")._replace(headers={ATTEMPT: 2, TRACEPARENT: TRACE}),
        first_properties("app", JSON, "Item")._replace(correlation_id=None),
        first_properties("app", JSON, "Item")._replace(headers={ATTEMPT: 1, TRACEPARENT: TRACE, WAIT: 1.0}),
        first_properties("app", JSON, "Item")._replace(headers={ATTEMPT: "1", TRACEPARENT: 1}),
        first_properties("app", "text/html", "Item")._replace(correlation_id=None),
        first_properties("app", "text/html", "Item")._replace(headers={"x-url": "http://é", ATTEMPT: 1}),
        first_properties("app", "text/html", "Item")._replace(headers={ATTEMPT: 1, "x-url": "u", WAIT: 2.0}),
        first_properties("app", "text/html", "Item")._replace(headers={ATTEMPT: 1, "x-url": "u", TRACEPARENT: TRACE}),
        first_properties("app", "text/html", "Item")._replace(headers={ATTEMPT: 1, "x-url": TRACEPARENT}),
    ],
)
def test_all_other_headers_are_read_by_name(properties: Properties, by_name: Callable[[], int]) -> None:
    _trail.read(_delivery(encode_header(properties, 7)))
    assert by_name() == 1


@pytest.mark.parametrize("content_encoding", [None, "zstd"])
@pytest.mark.parametrize("priority", [None, 0, 9])
@pytest.mark.parametrize("headers", [{}, {TRACEPARENT: TRACE}])
def test_messages_with_own_properties_are_read_as_bytes(
    content_encoding: str | None, priority: int | None, headers: Table, by_name: Callable[[], int]
) -> None:
    given_ = Properties(
        "text/html", content_encoding, {"x-url": "http://é", "n": {"a": 7}}, priority=priority, type="Page"
    )
    trail = _trail.Trail(1, 0.0, b"first", _trail.trace_fields(headers))
    encoded = _trail.next_properties_with("app", trail, JSON, "Thing", _trail.given_of(given_))
    assert _trail.read(_delivery(_with_id(encoded))) == trail
    assert by_name() == 0


@given(st.sampled_from([JSON, "text/html"]), st.integers(0, 400), st.binary(max_size=4))
def test_a_header_that_was_tampered_with_is_read_as_by_name_or_as_a_first_attempt(
    content_type: str, at: int, instead: bytes
) -> None:
    header = bytearray(encode_header(first_properties("app", content_type, "Item"), 7))
    at = min(at, len(header))
    header[at : at + len(instead)] = instead
    if len(header) < CONTENT_HEADER.size:
        return
    try:
        decode_header(bytes(header))
    except ProtocolViolation:
        assert _trail.read(_delivery(bytes(header))).attempt == 1
    else:
        # Their trace contexts may differ where neither is one.
        delivery = _delivery(bytes(header))
        assert _trail.read(delivery)[:3] == _trail._read_by_name(delivery)[:3]


@given(
    content_type=st.none() | st.just("text/html"),
    content_encoding=st.none() | st.just("zstd"),
    headers=st.none() | st.just({"x-url": "http://é", "n": 7}) | st.just({TRACEPARENT: "00-1", "x": {"a": [1, None]}}),
    mode=st.none() | st.just(1),
    priority=st.none() | st.just(0) | st.just(9),
    expiration=st.none() | st.just("60000"),
    type_=st.none() | st.just("Page"),
    correlation=st.sampled_from([b"", b"first"]),
    traced=st.booleans(),
)
def test_given_properties_take_the_place_of_our_own(
    content_type: str | None, content_encoding: str | None, headers: Table | None, mode: int | None,
    priority: int | None, expiration: str | None, type_: str | None, correlation: bytes, traced: bool,
) -> None:  # fmt: skip
    properties = Properties(
        content_type=content_type, content_encoding=content_encoding, headers=headers, delivery_mode=mode,
        priority=priority, expiration=expiration, type=type_,
    )  # fmt: skip
    trail = _trail.Trail(1, 0.0, correlation, FIELDS if traced else b"")
    ours = _trail.next_properties("app", trail, JSON, "Thing").decoded()
    wanted = with_given(ours, properties)
    found = _trail.next_properties_with("app", trail, JSON, "Thing", _trail.given_of(properties)).decoded()
    assert found._replace(timestamp=None) == wanted._replace(timestamp=None)


@pytest.mark.parametrize("priority", [1.0, "1", [1], 256, -1])
def test_a_boolean_priority_is_refused_after_an_equal_integer(priority: object) -> None:
    _trail.given_of(Properties(priority=1))
    with pytest.raises(UsageError, match="priority"):
        _trail.given_of(Properties(priority=priority))  # type: ignore[arg-type] # on purpose
