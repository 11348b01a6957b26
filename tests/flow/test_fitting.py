"""Headers are cut to what one frame holds: Rabbitry's texts first, then the largest of other programs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.properties import decode_header, encode_header, header_size
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.flow._fitting import CUT, ERROR, TRACEBACK, fit

OWN: dict[str, FieldValue] = {"x-rabbitry-attempt": 2, "x-rabbitry-stage": "stage"}
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3000)
_VALUES: st.SearchStrategy[FieldValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXTS | st.binary(max_size=3000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text("abcdefé", min_size=1, max_size=60), _VALUES, max_size=12),
    st.integers(4088, 9000),
    st.none() | _TEXTS,
    _TEXTS,
    st.sampled_from(["id", None]),
)
def test_fitted_headers_fit_into_a_frame_and_keep_ours(
    foreign: dict[str, FieldValue], limit: int, error: str | None, trace: str, identity: str | None
) -> None:
    fitted = fit(Properties(message_id=identity), foreign, OWN, limit, error=error, trace=trace)
    sent = fitted if identity else fitted._replace(message_id="0123456789abcdef-ffffff")
    assert header_size(sent) == len(encode_header(sent, 0)) <= limit
    headers = dict(decode_header(encode_header(sent, 0)).headers or {})
    assert headers.items() >= OWN.items()
    missing = set(foreign) - set(headers)
    assert (CUT in headers) == bool(missing)
    if error is not None:
        shown, traced = str(headers[ERROR]), str(headers[TRACEBACK])
        assert error.startswith(shown)
        assert trace.endswith(traced)
        assert len(shown.encode()) >= min(len(error.encode()), 247)  # a character may have four bytes


def test_texts_give_way_to_the_headers_of_other_programs() -> None:
    fitted = fit(Properties(message_id="m"), {"theirs": "x" * 3000}, OWN, 4088, error="e" * 2000, trace="t" * 9000)
    headers = fitted.headers or {}
    assert headers["theirs"] == "x" * 3000
    assert CUT not in headers
    assert 250 <= len(str(headers[ERROR])) < 2000
    assert headers[TRACEBACK] == ""


def test_the_largest_headers_are_cut_first_and_named() -> None:
    foreign = {"small": "s", "baggage": "b" * 5000, "larger": "c" * 6000}
    fitted = fit(Properties(message_id="m"), foreign, OWN, 4088, error="why", trace="where")
    headers = fitted.headers or {}
    assert (headers["small"], headers[ERROR], headers[TRACEBACK]) == ("s", "why", "where")
    assert headers[CUT] == "larger (6012 bytes), baggage (5013 bytes)"


def test_headers_that_were_cut_before_are_named_first() -> None:
    fitted = fit(Properties(message_id="m"), {"b": "b" * 5000, CUT: "a (9000 bytes)"}, OWN, 4088)
    assert (fitted.headers or {})[CUT] == "a (9000 bytes), b (5007 bytes)"


def test_only_some_of_many_cut_headers_are_named() -> None:
    fitted = fit(Properties(message_id="m"), {f"header-{n:04}": "x" * 900 for n in range(500)}, OWN, 4088)
    headers = fitted.headers or {}
    cut = str(headers[CUT])
    kept = [name for name in headers if name.startswith("header-")]
    assert len(kept) == 4
    assert cut.count("header-") + int(cut.split()[-2]) == 500 - len(kept)
    assert len(cut) <= 200


@pytest.mark.parametrize("value", [{"x": "\ud83d"}, [1.5, object()], 1 << 70, "\ud83d"])
def test_a_header_that_amqp_can_not_carry_is_cut(value: FieldValue) -> None:
    headers = fit(Properties(message_id="m"), {"odd": value, "even": 1}, OWN, 4088, error="why").headers or {}
    assert headers["even"] == 1
    assert "odd" not in headers
    assert headers[CUT] == "odd (can't be encoded)"


@pytest.mark.parametrize("size", range(40))
def test_a_text_is_cut_between_its_characters(size: int) -> None:
    room = 4088 - header_size(Properties(message_id="m", headers={**OWN, ERROR: "", TRACEBACK: ""}))
    error = "x" * (room - 20) + "é🐇" * 20
    headers = fit(Properties(message_id="m"), {"t": "x" * size}, OWN, 4088, error=error, trace="🐇").headers or {}
    assert error.startswith(str(headers[ERROR]))
    assert "\ufffd" not in str(headers[ERROR])
