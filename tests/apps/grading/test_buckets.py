"""Files kept in S3-compatible storage: moto's server, as a process on this machine."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.files import Files, Kept
from rabbitry.apps.grading.message import submission
from rabbitry.apps.grading.records import Database, course
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading import _running
from tests.apps.grading._running import recorded, role_set
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The URL of a storage with the bucket `course`."""
    argv = [sys.executable, "-m", "tests.support.s3"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            urlopen(Request(f"{url}/course", method="PUT", headers={"Host": "s3.amazonaws.com"}))  # noqa: S310 # of this machine
            yield url
        finally:
            server.kill()


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-tests")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nothing is asked outside of this machine


def _place(storage: str, bucket: str = "course", prefix: str = "/2026/autumn") -> str:
    return f"s3://{bucket}{prefix}?endpoint={storage}&region=eu-west-1"


def test_files_are_kept_in_a_bucket(storage: str) -> None:
    for prefix in ("", "/2026/autumn/"):
        files = Files(_place(storage, prefix=prefix), largest=1_000_000)
        for data in (b"", b"x" * 1_000_000, bytes(range(256)) * 40):
            kept = files.keep(data)
            assert kept == files.keep(data) == Kept.of(data)
            assert files.fetch(kept) == data
        with pytest.raises(FilesError, match="is not in s3://course"):
            files.fetch(Kept.of(b"another"))


def test_the_files_of_a_bucket_are_listed_with_their_sizes(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(_place(storage, prefix="/listed"))
    contents = [one for one in (b"%d" % number for number in range(3000)) if Kept.of(one).sha256.startswith("ab")]
    kept = [files.keep(data) for data in (*contents, b"another")]
    client = vars(vars(files)["_store"])["_client"]
    monkeypatch.setattr(client, "list_objects_v2", partial(client.list_objects_v2, MaxKeys=1))  # a page for each
    client.put_object(Bucket="course", Key="listed/ab/notes.txt", Body=b"not ours")
    assert files.listed("ab") == {one.sha256: one.packed for one in kept[:-1] if one is not None}
    assert files.listed("ab")
    assert kept[0] is not None
    again = files.keep(contents[0])
    assert again is not None
    assert again.packed == kept[0].packed, "known also of a file that is there already"
    assert Files(_place(storage, prefix="/lis")).listed("ab") == {}
    assert Files(_place(storage, "nowhere")).listed("ab") == {}


def test_a_part_of_an_object_is_asked_for_alone(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(_place(storage, prefix="/parts"))
    data = os.urandom(5000)
    kept = files.keep(data)
    assert kept is not None
    assert kept.packed is not None
    client, sent = vars(vars(files)["_store"])["_client"], list[int]()
    get = client.get_object

    def noted(**asked: str) -> Any:
        answer = get(**asked)
        sent.append(answer["ContentLength"])
        return answer

    monkeypatch.setattr(client, "get_object", noted)
    packed = zlib.compress(data, 6)
    assert files.part(kept, 1000, 500) == packed[1000:1500]
    assert files.part(kept, 5000, 500) == packed[5000:]
    assert sent == [500, kept.packed - 5000]
    assert files.part(kept, kept.packed, 500) == files.part(kept, 0, 0) == b""
    assert files.fetch(kept) == data
    with pytest.raises(FilesError, match="is not in s3://course"):
        files.part(Kept.of(b"another"), 0, 0)


def test_a_bucket_in_which_nothing_was_stored_is_told_from_one_that_is_used(storage: str) -> None:
    files = Files(_place(storage, prefix="/fresh"))
    assert files.is_unused()
    assert files.keep(b"x") is not None
    assert not files.is_unused()
    assert Files(_place(storage, prefix="/fres")).is_unused()
    assert Files(_place(storage, "nowhere")).is_unused()


def test_a_storage_that_can_t_be_used_is_named(storage: str) -> None:
    with pytest.raises(FilesError, match=r"the bucket 'nowhere' of .* does not exist: make it"):
        Files(_place(storage, "nowhere")).keep(b"x")
    with pytest.raises(FilesError, match=r"the storage s3://course.* can't be used"):
        Files(_place(f"http://127.0.0.1:{free_port()}")).keep(b"x")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("s3://", "is not s3://BUCKET/PREFIX"),
        ("s3:///prefix", "is not s3://BUCKET/PREFIX"),
        ("s3://course?zone=x", "is not s3://BUCKET/PREFIX"),
        ("s3://course?endpoint=", "is not s3://BUCKET/PREFIX"),
        ("s3://course?endpoint=nonsense&region=x", "can't be used"),
        ("s3://key:secret@course", "put them into AWS_ACCESS_KEY_ID"),
        ("s3://course?endpoint=https://key:secret@127.0.0.1", "put them into AWS_ACCESS_KEY_ID"),
        ("s3://course?endpoint=https://key%3Asecret%40127.0.0.1", "put them into AWS_ACCESS_KEY_ID"),
        ("s3://course?endpoint=https://127.0.0.1/%3FX-Amz-Signature%3Dsecret", "is not s3://BUCKET/PREFIX"),
        ("s3://course/?secret_key=secret", "is not s3://BUCKET/PREFIX"),
        ("s3://course?region=a&region=secret", "is not s3://BUCKET/PREFIX"),
        ("s3://key:secret/prefix", "is not s3://BUCKET/PREFIX"),
        ("s3://course/prefix#secret", "is not s3://BUCKET/PREFIX"),
        ("s3://[secret", "is not s3://BUCKET/PREFIX"),
        ("https://key:secret@course", "is a URL with https://"),
        ("S3://key:secret@course", "is a URL with S3://"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(place: str, why: str) -> None:
    with pytest.raises(UsageError) as error:
        Files(place)
    assert why in str(error.value)
    assert "secret" not in str(error.value)


def test_the_session_that_threads_would_share_is_not_used(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    Files(_place(storage)).keep(b"x")
    assert boto3.DEFAULT_SESSION is None


async def test_a_course_keeps_its_files_in_a_bucket(
    broker_url: str, one_database: Database, storage: str, tmp_path: Path
) -> None:
    files = Files(_place(storage))
    async with role_set(broker_url, one_database, files=files):
        identity = await _running.submit(broker_url, data=b"in a bucket")
        (found,) = await recorded(one_database, "confirmed", 1)
    assert found.kept is not None
    assert (found.id, files.fetch(found.kept)) == (identity, b"in a bucket")


@_running.ON_BOTH_DATABASES
def test_a_file_is_fetched_from_the_bucket_that_the_records_name(
    storage: str, found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = Files(_place(storage))
    with Database(found_url) as database:
        made = submission(7, "cloud_computing", b"x = 1\n", "x.py", "a1")
        database.write_now(partial(course.record, assignment=made, kept=files.keep(b"x = 1\n")))
        database.write_now(partial(course.note_place, place=files.place))
    assert _root.run(("grading", "fetch", "a1")) == 0
    assert (tmp_path / "x.py").read_bytes() == b"x = 1\n"
    assert _root.run(("grading", "fetch", "a1", "y.py", "--files", _place(storage, "nowhere"))) == 1
    assert "is not in s3://nowhere" in capsys.readouterr().err
