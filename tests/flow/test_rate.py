"""Rates as they are written."""

import pytest

from rabbitry.flow._rate import parse_rate


@pytest.mark.parametrize(
    ("text", "per_second", "burst", "ahead"),
    [("10/s", 10, 10, 600), ("100/m", 100 / 60, 2, 100), ("5000/h", 5000 / 3600, 2, 84), ("1/d", 1 / 86_400, 1, 1)],
)
def test_a_rate_is_a_number_in_a_time(text: str, per_second: float, burst: int, ahead: int) -> None:
    rate = parse_rate(text)
    assert (rate.text, rate.per_second, rate.burst, rate.ahead) == (text, per_second, burst, ahead)


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/s", "10/w", "1.5/s", "-1/s", "0/s", "1001/s", "10 / s", "10/s\n", "١/s"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate|is not between"):
        parse_rate(text)
