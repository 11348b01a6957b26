"""Submitted files are kept as they were handed in, by every route, and found again or named as damaged."""

import asyncio
import hashlib
import os
import stat
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rabbitry.apps.exceptions import RecordsAway
from rabbitry.apps.grading import counting
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.files import Bound, Files, Kept, default_place
from rabbitry.apps.grading.message import HISTORY, Assignment, Decision, Progress, submission
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, keeping
from rabbitry.apps.grading.roles import PROGRESS_EXCHANGE, PROGRESS_KEY
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.apps.grading.students import Submitter
from rabbitry.exceptions import UsageError
from tests.apps.grading import _running
from tests.apps.grading._running import ALL, CC, PEOPLE, Plain, arrived, decide, recorded, role_set
from tests.apps.grading.test_pipeline import FOUR, read_results
from tests.support.waiting import eventually, eventually_blocking

pytestmark = pytest.mark.timeout(120)
_BINARY = bytes(range(256)) * 9


def _on_disk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _bytes_on_disk(folder: Path) -> int:
    """Return the bytes of the kept files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.z"))


def test_a_content_is_kept_once_and_found_by_its_hash(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"), largest=10_000)
    for data in (b"", b"x" * 10_000, os.urandom(10_000), _BINARY):
        kept = files.keep(data)
        assert kept == Kept(hashlib.sha256(data).hexdigest(), len(data)) == files.keep(data)
        assert files.fetch(kept) == data
    (repeated,) = (tmp_path / "kept").glob(f"*/{Kept.of(b'x' * 10_000).sha256}.z")
    assert repeated.stat().st_size < 100, "it is not compressed"
    assert len(_on_disk(tmp_path / "kept")) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in _on_disk(tmp_path)} == {0o600}
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


def test_a_file_beyond_the_limit_is_not_kept(tmp_path: Path) -> None:
    assert Files(str(tmp_path / "kept"), largest=10).keep(b"x" * 11) is None
    assert not (tmp_path / "kept").exists()


def test_several_may_keep_the_same_content_at_once(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    ready = threading.Barrier(4)

    def keep() -> None:
        files = Files(str(tmp_path))
        ready.wait()
        files.keep(data)

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_on_disk(tmp_path)) == 1
    assert Files(str(tmp_path)).fetch(Kept.of(data)) == data


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    kept = files.keep(b"print('hello')\n")
    assert kept is not None
    with pytest.raises(FilesError, match=r"is not in .*--files or RABBITRY_FILES"):
        files.fetch(Kept.of(b"another"))
    (path,) = _on_disk(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-12], b"nonsense", whole.replace(whole[4:6], b"\0\0")):
        path.write_bytes(damaged)
        with pytest.raises(FilesError, match="is damaged"):
            files.fetch(kept)
    bomb = Kept(kept.sha256, 5)
    path.write_bytes(whole)
    with pytest.raises(FilesError, match="another hash"):
        files.fetch(bomb)


def test_what_was_never_finished_is_removed_after_an_hour_by_who_stores_files(tmp_path: Path) -> None:
    kept = Files(str(tmp_path)).keep(b"x")
    assert kept is not None
    old, new = (tmp_path / "unfinished" / name for name in ("old", "new"))
    old.touch()
    new.touch()
    hour_ago = time.time() - 3700
    os.utime(old, (hour_ago, hour_ago))
    files = Files(str(tmp_path))
    files.fetch(kept)
    assert old.exists(), "who only reads removes nothing"
    files.keep(b"y")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_file_is_durable_if_a_killed_process_stored_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Files(str(tmp_path / "kept")).keep(b"x")  # and killed before it made any name durable
    synced = set()
    sync = os.fsync

    def noted(file: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{file}"))
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    kept = Files(str(tmp_path / "kept")).keep(b"x")
    assert kept is not None
    assert synced == {str(tmp_path), str(tmp_path / "kept"), str(tmp_path / "kept" / kept.sha256[:2])}


@pytest.mark.parametrize("place", ["", " ", "a\0b", "ftp://host/files"])
def test_a_place_that_can_hold_no_files_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="the place of files"):
        Files(place)


def test_a_place_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        Files(str(tmp_path / "file"))
    with pytest.raises(FilesError, match="can't be written"):
        Files(str(tmp_path / "file" / "below")).keep(b"x")
    with pytest.raises((UsageError, FilesError), match=r"can't be (used|written)"):
        Files(str(tmp_path / ("x" * 300))).keep(b"x")


def test_files_lie_beside_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_place(f"sqlite:///{tmp_path}/course.sqlite3") == str(tmp_path / "course-files")
    monkeypatch.setenv("RABBITRY_RECORDS_FOLDER", str(tmp_path))
    assert default_place("postgresql://ann@host/course") == str(tmp_path / "grading-files")


async def test_every_program_s_file_is_kept_as_it_was_handed_in(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    async with role_set(broker_url, one_database, files=files):
        with Plain(broker_url) as plain:
            read_results(plain)
            mine = await _running.submit(broker_url, data=_BINARY)
            plain.send("demonstrator_cc", FOUR)
            plain.send("correction", {"StudentID": 9, "Answer": 42, "status": "submitted"})
            plain.send("demonstrator_cc", FOUR | {"Solution": "no base64!", "SolutionEncoding": "base64"})
            results = await asyncio.to_thread(plain.take, "results_queue", 4)
        found = {one.id: one for one in await recorded(one_database, "confirmed", 4)}
    assert files.fetch(_kept(found[mine])) == _BINARY
    for result in results:
        one, hops = found[result["SubmissionID"]], result[HISTORY]
        if result.get("SolutionEncoding") and one.id != mine:
            assert (one.kept, "sha256" in hops[0]) == (None, False)
        elif one.id != mine:
            data = files.fetch(_kept(one))
            assert data == (b"42" if "Answer" in result else b"x")
            assert hops[0]["sha256"] == hashlib.sha256(data).hexdigest() == one.sha256


def _kept(found: course.Submission) -> Kept:
    assert found.kept is not None, found
    return found.kept


async def test_a_file_is_kept_before_any_person_has_decided(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    async with role_set(broker_url, one_database, PEOPLE, files=files):
        identity = await _running.submit(broker_url, data=b"y = 2\n")
        (item,) = await arrived(one_database, "demonstrator")
        await recorded(one_database, "submitted", 1)  # the report may come later than the assignment
        find = partial(course.submission_of, given=identity)
        await eventually(lambda: one_database.read_now(find).kept is not None, "the file", within=_running.WITHIN)
        assert files.fetch(_kept(one_database.read_now(find))) == b"y = 2\n"
        await decide(one_database, item, "correct", Decision("ann", 1.0))
        for role, action in (("assistant", "validate"), ("coordinator", "confirm")):
            (item,) = await arrived(one_database, role)
            await decide(one_database, item, action, Decision("bob"))
        (found,) = await recorded(one_database, "confirmed", 1)
    assert (found.id, _kept(found)) == (identity, Kept.of(b"y = 2\n"))


async def test_a_coordinator_alone_keeps_the_files_of_other_programs(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"), largest=5)
    specs = [RoleSpec("coordinator", person=True)]
    async with role_set(broker_url, one_database, specs, files=files):
        with Plain(broker_url) as plain:
            for solution in ("short", "longer"):
                plain.send("confirmation", FOUR | {"Solution": solution, "status": "validated"})
        for item in await arrived(one_database, "coordinator", 2):
            await decide(one_database, item, "confirm", Decision("eve"))
        found = await recorded(one_database, "confirmed", 2)
    assert sorted(str(one.size) for one in found) == ["5", "None"]


async def test_a_file_that_is_not_the_id_s_is_not_kept(
    broker_url: str, one_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(str(tmp_path / "kept"))
    honest = submission(7, CC.name, b"mine", "x.py", "")
    honest["SubmissionID"] = identity = new_id(honest)
    forged = Progress.of(Assignment(honest | {"Solution": "another's"}), whole=True)
    async with role_set(broker_url, one_database, ALL, files=files):
        with Plain(broker_url, PROGRESS_EXCHANGE) as plain:
            plain.send(PROGRESS_KEY, forged)
            await recorded(one_database, "submitted", 1)
            assert _found(one_database, identity).kept is None
            plain.send(PROGRESS_KEY, Progress.of(honest, whole=True))
            await eventually(
                lambda: _found(one_database, identity).kept is not None, "the file", within=_running.WITHIN
            )
    assert _kept(_found(one_database, identity)) == Kept.of(b"mine")
    assert "is another one, and not kept" in caplog.text


async def test_a_file_that_can_not_be_stored_yet_holds_up_no_other(
    broker_url: str, one_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports that wait are recorded together; the file of one of them is refused by the disk at first."""
    files, stored = Files(str(tmp_path / "kept")), Counter[bytes]()
    keep = files.keep

    def fails_at_first(data: bytes) -> Kept | None:
        stored[data] += 1
        if data == b"5" and stored[data] < 3:
            raise FilesError("the disk is full")
        return keep(data)

    monkeypatch.setattr(files, "keep", fails_at_first)
    async with Submitter(Wiring(), broker_url) as submitter:
        for number in range(10):
            await submitter.submit(number, CC, b"%d" % number, "x.py")
    async with role_set(broker_url, one_database, files=files):
        await recorded(one_database, "confirmed", 10)
        await eventually(lambda: len(_on_disk(tmp_path / "kept")) == 10, "the last file", within=_running.WITHIN)
    found = one_database.read_now(course.submissions_of)
    assert sorted(files.fetch(_kept(one)) for one in found) == sorted(b"%d" % number for number in range(10))
    assert stored.pop(b"5") >= 3
    assert max(stored.values()) <= 2, "with its report and perhaps its confirmation, and not with the other's again"


def _found(database: Database, identity: str) -> course.Submission:
    found: Any = database.read_now(partial(course.submission_of, given=identity))
    assert isinstance(found, course.Submission)
    return found


def test_the_first_file_of_a_submission_counts(database: Database) -> None:
    made = submission(7, CC.name, b"x", "x.py", "s1")
    for data in (None, b"first", b"second"):
        kept = None if data is None else Kept.of(data)
        database.write_now(partial(course.record, assignment=made, kept=kept))
    assert _kept(_found(database, "s1")) == Kept.of(b"first")


def test_all_files_are_bounded_by_what_is_recorded_and_what_was_stored_since(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [os.urandom(1000) for _ in range(4)]
    bound = Bound(4500, partial(database.read_now, keeping.used))
    files, other = (Files(str(tmp_path / "kept"), bound=replace(bound, total=total)) for total in (4500, 3500))
    kept = [files.keep(data) for data in contents[:3]]
    for identity, one in zip(("a1", "a2", "a3", "a4"), (*kept, kept[0]), strict=True):
        made = submission(7, CC.name, b"x", "x.py", identity)
        database.write_now(partial(course.record, assignment=made, kept=one))
    assert database.read_now(keeping.used) == _bytes_on_disk(tmp_path / "kept"), "one file is of two submissions"
    with pytest.raises(FilesError, match=r"take 30\d\d bytes, .* exceed the limit of 3500: raise largest_total"):
        other.keep(contents[3])
    assert other.keep(contents[0]) == kept[0], "what is there already needs no room"
    monkeypatch.setattr("rabbitry.apps.grading.files._COUNTED_FOR", -1.0)  # what is recorded is read each time
    with pytest.raises(FilesError, match=r"take 60\d\d bytes"):
        files.keep(contents[3])  # what was stored since the last time may not be recorded
    assert files.keep(contents[3]) is not None


async def test_a_coordinator_counts_what_a_crash_left_and_what_was_removed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_LATER", 0.01)
    files, place, stop = Files(str(tmp_path / "kept")), tmp_path / "kept", asyncio.Event()
    kept = [files.keep(os.urandom(1000)) for _ in range(3)]
    for identity, one in zip(("a1", "a2"), kept[1:], strict=True):  # the first one's record was not written
        made = submission(7, CC.name, b"x", "x.py", identity)
        database.write_now(partial(course.record, assignment=made, kept=one))
    removed = kept[2]
    assert removed is not None
    (place / removed.sha256[:2] / f"{removed.sha256}.z").unlink()
    (place / "00").mkdir(exist_ok=True)
    (place / "00" / "notes.txt").write_text("not ours")
    listed, failed = files.listed, Counter[str]()

    def away(first: str) -> dict[str, int]:
        failed[first] += 1
        if failed[first] == 1 and first == "07":
            raise FilesError("the storage is away")
        return listed(first)

    monkeypatch.setattr(files, "listed", away)
    task = asyncio.create_task(counting.compare_kept(database, files, stop))
    await eventually(lambda: failed["ff"] == 1, "all compared", within=_running.WITHIN)
    stop.set()
    await task
    assert failed["07"] == 2
    assert database.read_now(keeping.used) == _bytes_on_disk(place)
    assert _bytes_on_disk(place) > 2000
    stored = files.keep(b"in between")
    assert stored is not None
    known = database.read_now(partial(keeping.recorded, first=stored.sha256[:2]))
    assert stored.sha256 not in known
    counting.compare(database, files, stored.sha256[:2])
    assert database.read_now(keeping.used) == _bytes_on_disk(place)


def test_a_file_that_could_not_be_stored_takes_no_room(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    files = Files(str(place), bound=Bound(3500, lambda: 0))
    content = os.urandom(1000)
    folder = Kept.of(content).sha256[:2]
    place.mkdir()
    (place / folder).write_text("in the way of the folder of that name")
    for _ in range(5):
        with pytest.raises(FilesError, match="can't be written"):
            files.keep(content)
    others = [data for data in (os.urandom(1000) for _ in range(200)) if Kept.of(data).sha256[:2] != folder]
    assert [files.keep(data) is not None for data in others[:3]] == [True] * 3


def test_threads_that_need_unreachable_records_wait_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than threads: those that come to one later are refused without another wait."""
    monkeypatch.setattr("rabbitry.apps.grading.files._FAILED_FOR", 60.0)
    asked, over = list[float](), threading.Event()

    def used() -> int:
        asked.append(time.monotonic())
        assert over.wait(_running.WITHIN)
        raise RecordsAway("the records can't be reached")

    files = Files(str(tmp_path / "kept"), bound=Bound(1_000_000, used))
    with ThreadPoolExecutor(4) as threads:
        kept = [threads.submit(files.keep, b"%d" % number) for number in range(20)]
        eventually_blocking(lambda: asked, "the first question")
        over.set()
        for future in kept:
            with pytest.raises(RecordsAway, match="can't be reached"):
                future.result(_running.WITHIN)
    assert len(asked) == 1
    monkeypatch.setattr("rabbitry.apps.grading.files._FAILED_FOR", -1.0)
    with pytest.raises(RecordsAway):
        files.keep(b"x")
    assert len(asked) == 2, "it is asked again after a while"


@pytest.mark.parametrize("is_mount_point", [False, True])
async def test_a_place_that_is_empty_although_files_are_recorded_is_waited_for(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    is_mount_point: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(counting, "_LATER", 0.01)
    place, elsewhere, stop = tmp_path / "kept", tmp_path / "elsewhere", asyncio.Event()
    bound = Bound(1_000_000, partial(database.read_now, keeping.used))
    files = Files(str(place), bound=bound)
    for identity in ("a1", "a2"):
        made = submission(7, CC.name, b"x", "x.py", identity)
        database.write_now(partial(course.record, assignment=made, kept=files.keep(os.urandom(1000))))
    before = database.read_now(keeping.used)
    place.rename(elsewhere)
    if is_mount_point:
        place.mkdir()
    task = asyncio.create_task(counting.compare_kept(database, files, stop))
    why = f"the place of files {place} is empty, but files are recorded: mount it"
    await eventually(lambda: f"are not counted: {why}" in caplog.text, "the warning", within=_running.WITHIN)
    with pytest.raises(FilesError, match="is empty, but files are recorded"):
        Files(str(place), bound=bound).keep(b"would be hidden once the place is mounted")
    assert not _on_disk(place)
    assert database.read_now(keeping.used) == before > 2000
    if is_mount_point:
        place.rmdir()
    next(elsewhere.rglob("*.z")).unlink()
    elsewhere.rename(place)
    await eventually(
        lambda: database.read_now(keeping.used) == _bytes_on_disk(place), "counted again", within=_running.WITHIN
    )
    stop.set()
    await task


def test_files_that_were_removed_by_hand_make_a_place_empty_and_not_another_one(
    database: Database, tmp_path: Path
) -> None:
    place = tmp_path / "kept"
    files = Files(str(place), bound=Bound(1_000_000, partial(database.read_now, keeping.used)))
    kept = files.keep(b"x")
    assert kept is not None
    database.write_now(partial(course.record, assignment=submission(7, CC.name, b"x", "x.py", "a1"), kept=kept))
    (file,) = _on_disk(place)
    file.unlink()
    counting.compare(database, files, kept.sha256[:2])
    assert database.read_now(keeping.used) == 0
    assert files.keep(b"y") is not None
