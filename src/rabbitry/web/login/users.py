"""The file of users: names, roles and hashed passwords, as `rabbitry web users` writes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import platformdirs

from rabbitry._decode import decode_json
from rabbitry._words import reason
from rabbitry.apps import Role
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.web.login.passwords import is_hash

VARIABLE: Final = "RABBITRY_WEB_USERS"
"""The environment variable of the option --users."""
ROLES: Final[Mapping[str, Role]] = {role.label: role for role in Role if role is not Role.ANYONE}
LONGEST_NAME: Final = 64
LONGEST_PASSWORD: Final = 1024
SHORTEST_PASSWORD: Final = 8
_LARGEST: Final = 1 << 20
"""Bytes of a file."""


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user: the role, and the password's hash."""

    role: Literal["viewer", "operator", "admin"]
    password: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: dict[str, Account]


def usual_file() -> Path:
    """Return the default file, in the user's data folder."""
    return platformdirs.user_data_path("rabbitry") / "web-users.json"


def chosen_file(named: Path | str | None) -> Path:
    """Return the file of users; the default one, which need not exist, if none is named.

    Args:
        named: The file of --users or RABBITRY_WEB_USERS; None for the default one.

    Raises:
        UsageError: There is no file with the given name.
    """
    file = usual_file() if named is None else Path(named)
    if named is not None and not file.exists():
        raise UsageError(f"there is no file of users {file}: make it with `rabbitry web users add --users {file} NAME`")
    return file


def check_name(name: str) -> str:
    """Return a user's name. Raises UsageError for one that can't be typed, shown or sent."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip() or ":" in name:
        raise UsageError(
            f"{name[:LONGEST_NAME]!r} can't be a user's name: use 1 to {LONGEST_NAME} visible characters, without "
            "colons and without spaces at its ends"
        )
    return name


def check_password(password: str) -> str:
    """Return a new password. Raises UsageError for one that is too short or too long; the text does not show it."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise UsageError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return password


def read_users(file: Path) -> dict[str, Account]:
    """Return the users of a file by name.

    Raises:
        UsageError: The file can't be read, has another form than `rabbitry web users` writes, or other users of the
            machine can read or change it.
    """
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                raise UsageError(
                    f"other users than its owner can access the file of users {file} (mode {mode:04o}): "
                    f"run `chmod 600 {file}`"
                )
            text = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"the file of users {file} can't be read: {reason(error)}") from error
    if len(text) > _LARGEST:
        raise UsageError(f"the file of users {file} is larger than {_LARGEST} bytes")
    try:
        found = decode_json(text, _File).users
    except Undecodable as error:
        raise UsageError(f"{file} is not a file of users, as `rabbitry web users add` makes it: {error}") from error
    for name, account in found.items():
        check_name(name)
        if not is_hash(account.password):
            raise UsageError(f"{file}: the password of user {name!r} is not a hash that `rabbitry web users` makes")
    return found


@contextlib.contextmanager
def changed_users(file: Path) -> Iterator[dict[str, Account]]:
    """Yield the users of a file, and write them back at the end of the block. The file is made if it is missing.

    Two commands at once wait for each other. A reader sees the file before or after, and never half of it.

    Raises:
        UsageError: As `read_users`, or the file can't be written.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (file.parent / f".{file.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users = read_users(file) if file.exists() else {}
            yield users
            _replace(file, msgspec.json.format(msgspec.json.encode(_File(users))) + b"\n")
    except OSError as error:
        raise UsageError(f"the file of users {file} can't be written: {reason(error)}") from error


def _replace(file: Path, text: bytes) -> None:
    number, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # with mode 0600
    try:
        with open(number, "wb") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
