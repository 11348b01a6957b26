"""Fixtures for the tests of the harness."""

import pytest

from tests.support.harness import wait_longer


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `wait_longer`."""
    wait_longer(monkeypatch)
