"""The harness for an app, in the tests of Rabbitry itself."""

import pytest

from rabbitry.testing._harness import Harness
from tests.support.waiting import WITHIN


def wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a harness wait as long as a busy machine may need, unless a test gives a time."""
    for method in (Harness.call, Harness.dead, Harness.idle, Harness.published):
        monkeypatch.setattr(method, "__kwdefaults__", {**(method.__kwdefaults__ or {}), "timeout": WITHIN})
