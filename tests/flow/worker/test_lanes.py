"""The tokens of a key's rate."""

import pytest

from rabbitry.flow._rate import parse_rate
from rabbitry.flow.worker._lanes import due


@pytest.mark.parametrize(
    ("rate", "until", "number", "pause"),
    [
        ("10/s", 0.0, 10, 0.0),
        ("10/s", 90.0, 10, 0.0),
        ("10/s", 99.75, 2, 0.0),
        ("10/s", 99.95, 0, 0.05),
        ("10/s", 100.5, 0, 0.6),
        ("2/m", 0.0, 1, 0.0),
        ("2/m", 85.0, 0, 15.0),
    ],
)
def test_tokens_fall_due_by_the_time_up_to_which_they_were_used(
    rate: str, until: float, number: int, pause: float
) -> None:
    found, seconds = due(parse_rate(rate), until, 100.0)
    assert found == number
    assert seconds == pytest.approx(pause)
