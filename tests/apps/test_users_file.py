"""The file of users."""

import os
import stat
import threading
from pathlib import Path

import pytest

from rabbitry.apps.exceptions import InvitationRefused
from rabbitry.apps.users_file import (
    Account,
    accept,
    changed_users,
    check_name,
    check_password,
    chosen_file,
    has_users,
    invited,
    read_users,
)
from rabbitry.exceptions import UsageError

_HASH = f"$scrypt$ln=1,r=8,p=3${'a' * 22}${'b' * 43}"


def test_what_is_written_is_read_and_only_the_owner_may(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "users.json"
    with changed_users(file) as users:
        users["alice"] = Account("operator", _HASH)
    assert read_users(file) == {"alice": Account("operator", _HASH)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [".users.json.lock", "users.json"]
    assert stat.S_IMODE((file.parent / ".users.json.lock").stat().st_mode) == 0o600


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "users.json"

    def add(number: int) -> None:
        with changed_users(file) as users:
            users[f"user {number}"] = Account("viewer", _HASH)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_users(file)) == 20


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    with changed_users(file) as users:
        users["alice"] = Account("viewer", _HASH)

    def fail() -> None:
        with changed_users(file) as known:
            known.clear()
            raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        fail()
    assert [*read_users(file)] == ["alice"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "users.json"
    with changed_users(file) as users:
        users["alice"] = Account("viewer", _HASH)
    file.chmod(mode)
    with pytest.raises(UsageError, match=f"mode 0{mode:o}.*chmod 600 {file}"):
        read_users(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is not a file of users"),
        (b"alice:secret\n", "is not a file of users"),
        (b"\xff\xfe", "is not a file of users"),
        (b'{"users": {"alice": {"role": "root", "password": "x"}}}', "is not a file of users.*root"),
        (b'{"users": {"alice": {"role": "admin", "password": "secret"}}}', "password of user 'alice' is not a hash"),
        (
            f'{{"users": {{"a:b": {{"role": "admin", "password": "{_HASH}"}}}}}}'.encode(),
            "'a:b' can't be a user's name",
        ),
        (b'{"users": {}}' + b" " * (1 << 23), "larger than 8388608 bytes"),
    ],
)
def test_a_bad_file_is_refused_and_its_secrets_are_not_shown(tmp_path: Path, text: bytes, why: str) -> None:
    file = tmp_path / "users.json"
    file.write_bytes(text)
    file.chmod(0o600)
    with pytest.raises(UsageError, match=why) as error:
        read_users(file)
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_there_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make it with `rabbitry web users add"):
        chosen_file(tmp_path / "missing.json")
    with pytest.raises(UsageError, match="can't be read"):
        read_users(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be written"):
        changed_users(tmp_path / "file" / "users.json").__enter__()


def test_a_file_that_may_be_there_is_not_taken_for_none(tmp_path: Path) -> None:
    """A page without a file of users needs no login. The system refuses to look up a name of that length."""
    file = tmp_path / ("x" * 300)
    for look in (has_users, chosen_file, lambda file: accept(file, "token", "a good password")):
        with pytest.raises(UsageError, match="can't be read: File name too long"):
            look(file)


@pytest.mark.parametrize("name", ["", " alice", "a:b", "a\nb", "a\0b", "a\u202eb", "x" * 65, "\ud800"])
def test_names_that_can_not_be_typed_shown_or_sent_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="can't be a user's name"):
        check_name(name)


def test_other_names_are_taken_as_they_are() -> None:
    for name in ("alice", "Zoë Ångström", "<b>&", "a" * 64):
        assert check_name(name) == name
    assert check_password("x" * 8) == "x" * 8
    for wrong in ("short", "x" * 1025):
        with pytest.raises(UsageError, match="8 to 1024 characters"):
            check_password(wrong)


def test_a_lock_is_let_go(tmp_path: Path) -> None:
    for number in range(3):
        with changed_users(tmp_path / "users.json") as users:
            users[str(number)] = Account("viewer", _HASH)
    assert len(os.listdir(tmp_path)) == 2


def _invited(file: Path, seconds: float) -> str:
    with changed_users(file) as users:
        users["alice"], token = invited(users.get("alice", Account("member", "")), seconds)
    return token


def test_without_a_file_there_is_no_invitation(tmp_path: Path) -> None:
    with pytest.raises(InvitationRefused):
        accept(tmp_path / "users.json", "token", "correct horse")


def test_an_invitation_sets_a_password_once_and_only_in_time(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    replaced, expired = _invited(file, 60), _invited(file, -1)
    for token in (replaced, expired, "", "x" * 10_000, "\ud800"):
        with pytest.raises(InvitationRefused, match="ask for a new one"):
            accept(file, token, "correct horse")
    token = _invited(file, 60)
    assert token not in file.read_text()
    with pytest.raises(UsageError, match="8 to 1024 characters"):
        accept(file, token, "short")  # and it is not used up
    outcomes: list[str] = []

    def try_it(password: str) -> None:
        try:
            outcomes.append(accept(file, token, password))
        except InvitationRefused:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_it, args=(f"password {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["alice", "refused", "refused"]
    assert read_users(file)["alice"].invitation is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
