"""The harness for an app, in the tests of Rabbitry itself."""

import pytest

from rabbitry.testing._harness import Harness
from tests.support.waiting import WITHIN


def wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a harness wait as long as a busy machine may need, unless a test gives a time."""
    monkeypatch.setattr(Harness.published, "__kwdefaults__", {"type": None, "timeout": WITHIN})
    monkeypatch.setattr(Harness.dead, "__kwdefaults__", {"timeout": WITHIN})
