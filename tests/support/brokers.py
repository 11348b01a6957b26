"""The marks of tests whose statement depends little on the broker, and that take seconds of CPU.

`make test` runs them on one broker, `make faults` on the other one.
"""

from typing import Final

import pytest


def on_embedded(fixture: str = "broker_url") -> pytest.MarkDecorator:
    """Return the mark of a test that RabbitMQ runs only in `make faults`; `fixture` takes the broker's kind."""
    kinds = ["embedded", pytest.param("rabbitmq", marks=pytest.mark.faults)]
    return pytest.mark.parametrize(fixture, kinds, indirect=True)


ON_EMBEDDED: Final = on_embedded()
ON_RABBITMQ: Final = pytest.mark.parametrize(
    "broker_url", ["rabbitmq", pytest.param("embedded", marks=pytest.mark.faults)], indirect=True
)
