"""The store of done keys, on SQLite, on PostgreSQL and on Redis."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from rabbitry.exceptions import UsageError
from rabbitry.flow._stores import once_sql
from rabbitry.flow._stores.once_claim import Claim, OnceStore, kept
from rabbitry.flow._stores.once_redis import RedisStore
from rabbitry.flow._stores.once_sql import SqlStore
from rabbitry.flow.exceptions import StoreError
from rabbitry.flow.once import _open
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import eventually_blocking


@pytest.fixture
def url(store_url: str) -> str:
    """URL of an empty store."""
    return store_url


@pytest.fixture
def store(url: str) -> Iterator[OnceStore]:
    """An empty store."""
    opened = _open("a test", url, "shop.charge", 3600)
    yield opened
    opened.close()


def _keys(store: SqlStore) -> list[str]:
    with store._tables.transaction() as transaction:
        return sorted(transaction.execute(sa.text("SELECT key FROM rabbitry_once")).scalars())


def test_a_key_is_claimed_done_and_known(store: OnceStore, url: str) -> None:
    assert store.claim("a", "m1", "1", 60) == Claim("mine", "m1")
    assert store.claim("a", "m2", "1", 60) == Claim("busy", "m1"), "another message"
    assert store.claim("a", "m1", "1", 60) == Claim("busy", "m1"), "a copy"
    assert store.claim("a", "m1", "2", 60) == Claim("mine", "m1"), "the message again, since its worker died"
    store.release("a", "m1", "1")
    assert store.claim("a", "m2", "1", 60).state == "busy", "what was released is not the claim any more"
    store.release("a", "m1", "2")
    assert store.claim("a", "m2", "1", 60) == Claim("mine", "m2")
    store.done("a", "m2")
    store.release("a", "m2", "1")
    assert store.claim("a", "m1", "3", 60) == Claim("done", "m2")
    other = _open("a test", url, "shop.other", 3600)
    assert other.claim("a", "m1", "1", 60).state == "mine", "another scope"
    other.close()


def test_a_claim_whose_lease_is_over_is_taken(store: OnceStore) -> None:
    assert store.claim("a", "m1", "x", -1).state == "mine"
    assert store.claim("a", "m2", "y", -1, keeps_owner=True) == Claim("mine", "m1")
    assert store.claim("a", "m3", "z", 60) == Claim("mine", "m3")


def test_what_was_done_is_forgotten_after_the_window(url: str) -> None:
    store = _open("a test", url, "shop.charge", 0.2)
    store.done("a", "m1")
    assert store.claim("a", "m2", "1", 60).state in ("done", "mine"), "done, unless the machine was slow"
    eventually_blocking(lambda: store.claim("a", "m3", "1", -1).state == "mine", "the key to be forgotten")
    store.close()


def test_what_is_over_is_deleted_from_a_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_sql, "_PURGED_EACH", 1)
    store = SqlStore(database_url, "shop.charge", -1)
    for key in ("a", "b"):
        store.done(key, "m1")
    assert store.claim("a", "m2", "1", 60).state == "mine"
    assert _keys(store) == ["a"], "what is over is deleted"
    store.close()


def test_a_key_of_any_length_is_kept_in_few_bytes(store: OnceStore) -> None:
    long = "x" * 10_000
    assert store.claim(long, "m1", "1", 60).state == "mine"
    assert store.claim(long, "m2", "1", 60).state == "busy"
    assert store.claim(long + "y", "m2", "1", 60).state == "mine"
    assert (kept("short"), len(kept(long)) < 100) == ("short", True)


def test_keys_that_a_database_refuses_are_kept(store: OnceStore) -> None:
    for key in ("a\0", "a\0b", "\ud800"):
        assert store.claim(key, "m1", "1", 60).state == "mine"
        assert store.claim(key, "m2", "1", 60).state == "busy"


def test_a_claim_is_held_until_its_window_is_over(store: OnceStore) -> None:
    assert store.claim("a", "m1", "1", -1).state == "mine"
    store.hold("a", "m1", "0")
    assert store.claim("a", "m1", "2", -1).state == "mine", "what another run holds is not held"
    store.hold("a", "m1", "2")
    assert store.claim("a", "m2", "1", 60) == Claim("busy", "m1"), "its lease was over, and it is held"
    assert store.claim("a", "m1", "3", 60).state == "mine", "the message again, since its worker died"
    store.done("a", "m1")
    store.hold("a", "m1", "3")
    assert store.claim("a", "m2", "1", 60).state == "done"


def test_scopes_and_keys_with_colons_are_told_apart(url: str) -> None:
    for scope, key in (("a:b", "c"), ("a", "b:c")):
        opened = _open("a test", url, scope, 3600)
        assert opened.claim(key, "m1", "1", 60).state == "mine"
        opened.close()


def test_a_key_that_is_released_between_the_statements_of_a_claim_is_claimed(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.create_database()
    store, other = (SqlStore(url, "shop.charge", 3600) for _ in range(2))
    other.claim("a", "m1", "1", 60)

    def release(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT"):
            other.release("a", "m1", "1")

    sa.event.listen(store._tables._engine, "after_cursor_execute", release)
    assert store.claim("a", "m2", "1", 60) == Claim("mine", "m2")
    store.close()
    other.close()


@pytest.mark.timeout(120)
def test_rows_that_another_program_deletes_are_left_to_it(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once_sql, "_PURGED_EACH", 1)
    url = postgresql_server.create_database()
    store, other = (SqlStore(url, "shop.charge", -1) for _ in range(2))
    store.done("a", "m1")
    with other._tables.transaction() as transaction:
        transaction.execute(sa.text("DELETE FROM rabbitry_once"))
        assert store.claim("b", "m2", "1", 60).state == "mine", "it does not wait for the other one"
    store.close()
    other.close()


def test_of_many_one_has_the_claim(store: OnceStore, url: str) -> None:
    others = [_open("a test", url, "shop.charge", 3600) for _ in range(3)]
    ready = threading.Barrier(8)

    def claim(number: int) -> list[str]:
        ready.wait()
        at = (store, *others)[number % 4]
        return [at.claim(f"key{key}", f"m{number}", "1", 60).state for key in range(10)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, range(8)))
    for other in others:
        other.close()
    for states in zip(*found, strict=True):
        assert sorted(states) == ["busy"] * 7 + ["mine"]


def test_a_store_that_does_not_answer_names_itself_without_its_password() -> None:
    with pytest.raises(StoreError, match=r"the store of done keys postgresql.*does not answer") as caught:
        SqlStore(f"postgresql://ann:secret@127.0.0.1:{free_port()}/shop", "shop.charge", 60)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match=r"done keys redis://127\.0\.0\.1:\d+/0 does not answer") as caught:
        RedisStore(f"redis://ann:secret@127.0.0.1:{free_port()}/0", "shop.charge", 60)
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="is no URL of Redis"):
        RedisStore("redis://127.0.0.1:x/0", "shop.charge", 60)
    with pytest.raises(UsageError, match="sqlite:///FILE or postgresql://"):
        SqlStore("mysql://a/b", "shop.charge", 60)
