"""The audit log: entries, their bound, and what happens when the file is of no use."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from rabbitry.apps.exceptions import RecordsError
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web import audit as limits
from rabbitry.web.audit import DONE, Audit, default_file


async def test_an_entry_is_written_before_the_change_and_completed_after_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "audit.sqlite3"
    audit = Audit(file)
    assert await audit.newest() == []
    first = await audit.begin("ann", "purge", "/", "q")
    assert [entry["result"] for entry in await audit.newest()] == ["begun; its end is not known"]
    second = await audit.begin("ben", "delete", "v", "q2")
    await audit.end(first)
    await audit.end(second, "refused")
    entries = await Audit(file).newest()  # as after a restart
    assert [(each["who"], each["action"], each["vhost"], each["queue"], each["result"]) for each in entries] == [
        ("ben", "delete", "v", "q2", "refused"),
        ("ann", "purge", "/", "q", DONE),
    ]
    assert entries[0]["at"] >= entries[1]["at"] > 1_700_000_000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_KEPT", 5)
    monkeypatch.setattr(limits, "MOST_SHOWN", 3)
    audit = Audit(tmp_path / "audit.sqlite3")
    await asyncio.gather(*(audit.begin("ann", "purge", "/", f"q{number}") for number in range(12)))
    await audit.end(12, "x" * 1000)
    shown = await audit.newest()
    assert len(shown) == 3
    assert len(shown[0]["result"]) == 500
    with sqlite3.connect(tmp_path / "audit.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (5,)
    connection.close()


async def test_a_file_of_no_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "audit.sqlite3"
    file.write_bytes(b"no database at all" * 100)
    audit = Audit(file)
    with pytest.raises(RecordsError, match=r"audit\.sqlite3 can't be used: .*; move it away"):
        await audit.newest()
    with pytest.raises(RecordsError, match=r"audit\.sqlite3"):
        await audit.begin("ann", "purge", "/", "q")


def test_the_log_lies_beside_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORDS_FOLDER, str(tmp_path))
    assert default_file() == tmp_path / "audit.sqlite3"
    monkeypatch.delenv(RECORDS_FOLDER)
    assert default_file().name == "audit.sqlite3"
    assert default_file().parent != tmp_path
