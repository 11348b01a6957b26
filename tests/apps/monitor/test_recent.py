"""The last samples of a machine."""

from rabbitry.apps.monitor.reading import Values
from rabbitry.apps.monitor.recent import Recent


def test_the_oldest_sample_makes_room_and_missing_values_stay_missing() -> None:
    samples: list[tuple[float, Values]] = [
        (1.5, (10.0, None, 0.0, 1e12)),
        (2.5, (None, None, None, None)),
        (3.5, (0.1, 99.99, 3.0, None)),
    ]
    recent = Recent(2)
    assert (list(recent), len(recent)) == ([], 0)
    for at, values in samples:
        recent.add(at, values)
    assert (list(recent), len(recent)) == (samples[1:], 2)
