"""The store of joins, on SQLite, on PostgreSQL and on Redis."""

import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from rabbitry.exceptions import UsageError
from rabbitry.flow import joining
from rabbitry.flow._parts import NOTICE, Join, Part
from rabbitry.flow._stores import join_answers
from rabbitry.flow._stores.join_answers import KEPT, JoinStore
from rabbitry.flow._stores.join_redis import RedisStore
from rabbitry.flow._stores.join_sql import SqlStore
from rabbitry.flow.exceptions import Reject, Retry
from tests.support import redis
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL


@pytest.fixture
def store(store_url: str) -> Iterator[JoinStore]:
    """An empty store."""
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def tables(database_url: str) -> Iterator[SqlStore]:
    """An empty store in a database with tables."""
    opened = SqlStore(database_url, "app.join", 60, 600)
    yield opened
    opened.close()


def open_store(url: str) -> JoinStore:
    return joining._open("a test", url, Join("split", "app.join", 60, 600))


def rows(store: SqlStore, table: str) -> list[tuple[object, ...]]:
    with store._tables.transaction() as transaction:
        return [tuple(row) for row in transaction.execute(sa.text(f"SELECT * FROM {table}"))]  # noqa: S608 # a constant


def test_the_message_that_brings_the_last_part_runs_the_join_and_no_other(store: JoinStore) -> None:
    assert store.arrive(Part("a", 1, 2), "m1", "1", b"1") is None
    assert store.arrive(Part("a", 1, 2), "m2", "1", b"copy") is None
    assert store.arrive(Part("a", 0, 2), "m3", "1", b"0") == [b"0", b"1"]
    assert store.arrive(Part("a", 0, 2), "m4", "1", b"0") is None, "a copy"
    with pytest.raises(Retry, match="job 'a' is being joined") as caught:
        store.arrive(Part("a", 0, 2), "m3", "1", b"0")
    assert (caught.value.after, caught.value.count) == (600, False), "a copy of the message that runs it"
    assert store.arrive(Part("a", 0, 2), "m3", "2", b"0") == [b"0", b"1"], "delivered again"
    store.release("a", "1")
    with pytest.raises(Retry):
        store.arrive(Part("a", 0, 2), "m3", "2", b"0")
    store.release("a", "2")
    assert store.arrive(Part("a", 0, 2), "m3", "2", b"0") == [b"0", b"1"], "replayed"
    store.finish("a")
    assert store.arrive(Part("a", 0, 2), "m3", "1", b"0") is None, "its results are confirmed"


def test_of_a_joined_job_no_bodies_are_kept(tables: SqlStore) -> None:
    for number in range(2):
        tables.arrive(Part("a", number, 2), f"m{number}", "1", b"1")
    tables.finish("a")
    assert [row[-1] for row in rows(tables, "rabbitry_join_part")] == [b"", b""]


def test_redis_forgets_bodies_with_their_join_and_jobs_in_time(redis_url: str) -> None:
    redis.empty(redis_url)
    store = RedisStore(f"{redis_url}/0", "a:queue \udcff", 60, 600)
    job = "a:job/\udcff"
    assert store.arrive(Part(job, 0, 2), "m\udcff", "1", b"0") is None
    assert store.arrive(Part(job, 1, 2), "m\udcff", "1", b"\xff") == [b"0", b"\xff"]
    store.finish(job)
    store.finish("one that is not known")
    client = importlib.import_module("redis").Redis.from_url(f"{redis_url}/0")
    keys = sorted(client.keys())
    assert len(keys) == 2
    assert client.hgetall(keys[1]) == {b"0": b"", b"1": b""}
    for key in keys:
        assert 0 < client.pttl(key) <= 1000 * (60 + KEPT)
    client.close()
    store.close()


def test_while_redis_does_not_answer_parts_are_tried_again_without_an_attempt() -> None:
    with redis.running() as url:
        store = RedisStore(f"{url}/0", "app.join", 60, 600)
    with pytest.raises(Retry, match=r"a join's store redis://127.*does not answer") as caught:
        store.arrive(Part("a", 0, 1), "m", "1", b"")
    assert not caught.value.count
    store.close()


def test_a_file_of_parts_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "joins.sqlite3"
    SqlStore(f"sqlite:///{path}", "app.join", 60, 600).close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_of_many_workers_one_runs_the_join(store: JoinStore, store_url: str) -> None:
    others = [open_store(store_url) for _ in range(3)]
    ready = threading.Barrier(8)

    def arrive(number: int) -> list[list[bytes] | None]:
        ready.wait()
        at = (store, *others)[number % 4]
        return [
            at.arrive(Part(f"job{job}", number // 2, 4), f"m{job}.{number}", "1", b"%d" % (number // 2))
            for job in range(10)
        ]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(arrive, range(8)))
    for other in others:
        other.close()
    for job in range(10):
        ran = [answers[job] for answers in found if answers[job] is not None]
        assert ran == [[b"0", b"1", b"2", b"3"]], f"job {job}"


def test_past_its_limit_a_job_is_a_dead_letter_that_names_what_is_missing(store: JoinStore) -> None:
    notice = Part("a", NOTICE, 3)
    store.arrive(Part("a", 1, 3), "m1", "1", b"1")
    for run in ("1", "2"):  # as it is delivered again if its worker dies
        with pytest.raises(Reject, match="job 'a' has 2 parts of 3 missing after 60 s: 0, 2") as caught:
            store.end(notice, "n1", run, "dead")
        assert caught.value.reason == "late"
    assert store.end(notice, "n2", "1", "dead") is None, "of the job that was split again"
    with pytest.raises(Reject, match="part 0 of job 'a' came after the job's limit of time"):
        store.arrive(Part("a", 0, 3), "m2", "1", b"0")


def test_past_its_limit_a_job_is_joined_with_what_is_there_by_choice(store: JoinStore) -> None:
    store.arrive(Part("a", 2, 3), "m1", "1", b"2")
    assert store.end(Part("a", NOTICE, 3), "n1", "1", "join") == [b"2"]
    assert store.end(Part("a", NOTICE, 3), "n1", "2", "join") == [b"2"], "delivered again"
    assert store.arrive(Part("a", 2, 3), "m2", "1", b"2") is None, "a copy of one that was joined"
    store.finish("a")
    with pytest.raises(Reject, match="came after"):
        store.arrive(Part("a", 0, 3), "m3", "1", b"0")


def test_the_limit_of_a_joined_job_passes_without_notice(store: JoinStore) -> None:
    assert store.arrive(Part("a", 0, 1), "m1", "1", b"0") == [b"0"]
    assert store.end(Part("a", NOTICE, 1), "n1", "1", "dead") is None
    store.finish("a")
    assert store.end(Part("a", NOTICE, 1), "n1", "1", "dead") is None


def test_a_job_of_no_parts_is_joined_once(store: JoinStore) -> None:
    assert store.end(Part("a", NOTICE, 0), "n1", "1", "dead") == []
    assert store.end(Part("a", NOTICE, 0), "n2", "1", "dead") is None
    store.finish("a")
    assert store.end(Part("a", NOTICE, 0), "n1", "1", "dead") is None


def test_a_job_split_in_another_number_of_parts_is_refused(store: JoinStore) -> None:
    store.arrive(Part("a", 0, 3), "m1", "1", b"0")
    with pytest.raises(Reject, match="job 'a' was split in 3 parts, and in 2 when it was handled again"):
        store.arrive(Part("a", 1, 2), "m2", "1", b"1")


def test_the_bodies_of_a_job_are_bounded(store: JoinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_answers, "MOST_BYTES", 10)
    store.arrive(Part("a", 0, 2), "m1", "1", b"0" * 6)
    with pytest.raises(Reject, match="the parts of job 'a' have more than 10 bytes"):
        store.arrive(Part("a", 1, 2), "m2", "1", b"1" * 6)
    assert store.arrive(Part("a", 1, 2), "m3", "1", b"1" * 4) == [b"0" * 6, b"1" * 4]


def test_jobs_are_forgotten_when_they_were_kept_long_enough(tables: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_answers, "KEPT", -61.0)
    tables.arrive(Part("old", 0, 2), "m1", "1", b"0")
    monkeypatch.undo()
    tables.arrive(Part("new", 0, 1), "m2", "1", b"0")
    tables.finish("new")
    assert [row[1] for row in rows(tables, "rabbitry_join_job")] == ["new"]
    assert [row[1] for row in rows(tables, "rabbitry_join_part")] == ["new"]


@pytest.mark.timeout(120)
def test_jobs_that_another_program_deletes_are_left_to_it(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.create_database()
    store, other = SqlStore(url, "app.join", -join_answers.KEPT - 1, 600), SqlStore(url, "app.join", 60, 600)
    store.arrive(Part("old", 0, 2), "m1", "1", b"0")
    other.arrive(Part("new", 0, 1), "m2", "1", b"0")
    with other._tables.transaction() as transaction:
        transaction.execute(sa.text("DELETE FROM rabbitry_join_job WHERE job = 'old'"))
        store.finish("new")  # it does not wait for the other one
    store.close()
    other.close()


@pytest.mark.parametrize("url", ["mysql://a/b", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_another_store_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///FILE or postgresql://"):
        SqlStore(url, "app.join", 60, 600)


def test_while_the_store_does_not_answer_parts_are_tried_again_without_an_attempt(tables: SqlStore) -> None:
    tables._tables.close()
    tables._tables._engine = sa.create_engine(f"postgresql+psycopg://ann:secret@127.0.0.1:{free_port()}/jobs")
    with pytest.raises(Retry, match=r"a join's store postgresql.*does not answer") as caught:
        tables.arrive(Part("a", 0, 1), "m", "1", b"")
    assert not caught.value.count
    assert "secret" not in str(caught.value)
