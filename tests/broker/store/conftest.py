"""What tests of the store share."""

import pytest

from rabbitry.broker._store import sqlite


@pytest.fixture(autouse=True)
def unhurried_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read find all that it wants; on a busy machine, its time would end before."""
    monkeypatch.setattr(sqlite, "_READS_FOR", 60.0)
