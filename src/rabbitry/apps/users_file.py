"""The file of the dashboard's users: names, roles, hashed passwords and invitations."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import platformdirs

from rabbitry._decode import decode_json
from rabbitry._words import reason
from rabbitry.apps.exceptions import InvitationRefused
from rabbitry.apps.passwords import hash_password, is_hash
from rabbitry.apps.users import AppRole, Role
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.files import exists, lock_file

VARIABLE: Final = "RABBITRY_WEB_USERS"
"""The environment variable of the option --users."""
ROLES: Final[Mapping[str, Role]] = {role.label: role for role in Role if role is not Role.ANYONE}
LONGEST_NAME: Final = 64
LONGEST_PASSWORD: Final = 1024
SHORTEST_PASSWORD: Final = 8
_TYPED: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_LARGEST: Final = 1 << 23
"""Bytes of a file: 10,000 users with invitations take 5 MB."""


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link with which a user sets the password, once. digest: SHA-256 of its token. until: Unix time of its end."""

    digest: str
    until: float


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user.

    Attributes:
        role: The role in the dashboard.
        password: The password's hash; empty until an invited user has set it, and for one who signs in through an
            OpenID Connect provider alone.
        apps: App → the user's role in it.
        invitation: The invitation that is open, if there is one.
    """

    role: Literal["member", "viewer", "operator", "admin"]
    password: str
    apps: dict[str, AppRole] = {}
    invitation: Invitation | None = None


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
        UsageError: There is no file with the given name, or its folder can't be read.
    """
    file = usual_file() if named is None else Path(named)
    if named is not None and not has_users(file):
        raise UsageError(f"there is no file of users {file}: make it with `rabbitry web users add --users {file} NAME`")
    return file


def has_users(file: Path) -> bool:
    """Return whether there is a file of users, without which a page needs no login.

    Raises:
        UsageError: Its folder can't be read.
    """
    try:
        return exists(file)
    except OSError as error:
        raise UsageError(f"the file of users {file} can't be read: {reason(error)}") from error


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
            if mode & 0o077 and sys.platform != "win32":  # where access is not a matter of the mode
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
        if account.password and not is_hash(account.password):
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
        with _locked(file.parent / f".{file.name}.lock"):
            users = read_users(file) if exists(file) else {}
            yield users
            _replace(file, msgspec.json.format(msgspec.json.encode(_File(users))) + b"\n")
    except OSError as error:
        raise UsageError(f"the file of users {file} can't be written: {reason(error)}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file for its owner alone: who can open it can hold the lock for ever."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            with contextlib.suppress(PermissionError):  # of another owner, who shares it on purpose
                os.fchmod(opened, 0o600)
        lock_file(opened, waits=True)
        yield
    finally:
        os.close(opened)


def invited(account: Account, seconds: float, *, is_typed: bool = False) -> tuple[Account, str]:
    """Return an account with a new invitation instead of an earlier one, and the invitation's token.

    A password that was set before holds until the invitation is accepted.

    Args:
        account: The account.
        seconds: How long the invitation holds.
        is_typed: Whether the token is a first password that a person types, rather than a part of a link.
    """
    token = _typed() if is_typed else secrets.token_urlsafe(32)
    invitation = Invitation(_digest(token), time.time() + seconds)
    return msgspec.structs.replace(account, invitation=invitation), token


def is_invitation(account: Account, token: str) -> bool:
    """Return whether a token is that of an account's open invitation."""
    # A token has at least 99 random bits: its digest needs no salt, and the time of a comparison helps nobody guess.
    found = account.invitation
    return found is not None and found.digest == _digest(token) and time.time() < found.until


def accept(file: Path, token: str, password: str) -> str:
    """Set the password of an invited user, which uses up the invitation. Return the user's name. Blocks.

    Args:
        file: The file of users.
        token: The invitation's token.
        password: The new password.

    Raises:
        InvitationRefused: There is no such invitation: it was used or replaced, or has expired.
        UsageError: The password is too short or too long, or is the token, or the file can't be used.
    """
    check_password(password)
    if password == token:
        raise UsageError("the new password is the first one: choose another")
    # Before the slow hash, which nobody may order in advance. A missing file's path is nothing for strangers.
    if not has_users(file) or _invited_with(read_users(file), token) is None:
        raise InvitationRefused
    hashed = hash_password(password)
    with changed_users(file) as users:
        # Of two requests with the same token, the second one finds no invitation.
        name = _invited_with(users, token)
        if name is None:
            raise InvitationRefused
        users[name] = msgspec.structs.replace(users[name], password=hashed, invitation=None)
    return name


def _invited_with(users: Mapping[str, Account], token: str) -> str | None:
    return next((name for name, account in users.items() if is_invitation(account, token)), None)


def _typed() -> str:
    """Return a new first password: 20 letters and digits that can be told apart in any font, of 99 random bits."""
    signs = [secrets.choice(_TYPED) for _ in range(20)]
    return "-".join("".join(signs[first : first + 5]) for first in range(0, 20, 5))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


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
