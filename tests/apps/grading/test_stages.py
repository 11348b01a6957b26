"""Batches of reports to the records whose database is locked, or of whose files one can't be stored."""

import threading
from pathlib import Path

import pytest

from rabbitry.apps import _records
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.files import Files, Kept
from rabbitry.apps.grading.message import Progress, submission
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.stages import RoleSet, RoleSpec, Wiring
from rabbitry.apps.grading.students import Submitter
from rabbitry.flow.batch import Batch
from tests.apps.grading._running import CC, WITHIN, recorded, role_set
from tests.apps.grading.test_message import message
from tests.apps.test_records import locked
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)
_COORDINATOR = (RoleSpec("coordinator"),)
_LOCK = {"sqlite": "SELECT 1", "postgresql": "LOCK TABLE submissions IN EXCLUSIVE MODE"}


async def test_reports_that_meet_locked_records_come_again_one_by_one_and_are_not_lost(
    broker_url: str, one_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_records, "_BUSY_SECONDS", 0.2)
    monkeypatch.setattr(_records, "_LOCK_SECONDS", 0.2)
    with Database(one_url) as other, Database(one_url) as database:
        async with Submitter(Wiring(), broker_url) as submitter:
            for number in range(10):
                await submitter.submit(number + 1, CC, b"x", "x.py")
        with locked(other, _LOCK[one_url.partition(":")[0]]):
            async with role_set(broker_url, database, _COORDINATOR):
                await eventually(lambda: caplog.text.count("'records', attempt 1: ") >= 10, "all", within=WITHIN)
        async with role_set(broker_url, database, _COORDINATOR):
            await recorded(database, "submitted", 10)
    assert "kept it locked for 0.2 s" in caplog.text
    assert "a batch of" not in caplog.text, "each half would wait for the lock again"


async def test_a_batch_of_reports_has_stored_all_its_files_before_it_fails(
    one_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two files is refused, as the records can't be asked for room, while the other is being written."""
    files, begun, over = Files(str(tmp_path / "kept")), threading.Event(), threading.Event()
    keep, stored = files.keep, list[bytes]()

    def slow_or_refused(data: bytes) -> Kept | None:
        if data == b"refused":
            assert begun.wait(WITHIN)
            raise RecordsError("the records are damaged")
        begun.set()
        assert over.wait(WITHIN)
        stored.append(data)
        return keep(data)

    monkeypatch.setattr(files, "keep", slow_or_refused)
    reports = [submission(7, CC.name, data, "x.py", "") for data in (b"slow", b"refused")]
    for report in reports:
        report["SubmissionID"] = new_id(report)
    role_set_ = RoleSet(Wiring(), _COORDINATOR, one_database, files=files)
    record = role_set_.app().stages["records"].handler
    told = [Progress.of(report, whole=True) for report in reports]
    go_on = threading.Timer(0.3, over.set)
    go_on.start()
    with pytest.raises(RecordsError, match="are damaged"):
        await record(told, [message(), message()], Batch(2))
    assert stored == [b"slow"], "it is still being written, and nobody waits for it"
    go_on.join()
