"""Values for hypothesis that AMQP can carry, in the form of Rabbitry's codec."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import strategies as st

from rabbitry.amqp.protocol.tables import FieldValue, Float32, LongString, TaggedInt

_RANGES = {
    b"b": (-(2**7), 2**7 - 1),
    b"B": (0, 2**8 - 1),
    b"s": (-(2**15), 2**15 - 1),
    b"u": (0, 2**16 - 1),
    b"I": (-(2**31), 2**31 - 1),
    b"i": (0, 2**32 - 1),
    b"l": (-(2**63), 2**63 - 1),
    b"L": (-(2**63), 2**63 - 1),
}

names = st.text(max_size=30)
"""Text that fits a short string: at most 120 bytes."""
integers = st.integers(-(2**63), 2**63 - 1)
tagged_integers = st.sampled_from(sorted(_RANGES)).flatmap(
    lambda tag: st.integers(*_RANGES[tag]).map(lambda number: TaggedInt(number, tag))
)
early_timestamps = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
"""Timestamps that pamqp reads as seconds; it reads larger ones as milliseconds."""
timestamps = st.integers(0, int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
decimals = st.builds(
    lambda number, scale: Decimal((int(number < 0), Decimal(abs(number)).as_tuple().digits, -scale)),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)
scalars: st.SearchStrategy[FieldValue] = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    tagged_integers,
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(Float32),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.just(LongString(b"\xff\xfe")),
    timestamps,
    decimals,
)
values: st.SearchStrategy[FieldValue] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
tables = st.dictionaries(names, values, max_size=6)

plain_tables = st.dictionaries(
    st.text(st.characters(max_codepoint=127), min_size=1, max_size=20),
    st.one_of(
        st.none(),
        st.booleans(),
        # pamqp uses the smallest tag that holds a number; from 2**32 on that is l, as here.
        st.integers(2**32, 2**63 - 1),
        st.text(max_size=40),
        early_timestamps,
    ),
    max_size=5,
)
"""Tables that pamqp encodes as Rabbitry does."""
