"""Checking names and passwords: against the file of users, and against the shared password."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rabbitry.apps import AppRole, Role
from rabbitry.apps.exceptions import InvitationRefused
from rabbitry.apps.passwords import LOG_COST, is_password
from rabbitry.apps.users_file import (
    LONGEST_NAME,
    LONGEST_PASSWORD,
    ROLES,
    Account,
    accept,
    check_password,
    has_users,
    is_invitation,
    read_users,
)
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.runtime.http.guesses import FREE, FREE_TOGETHER, Guesses

LOOK_AGAIN: Final = 2.0
"""Seconds between two checks whether the file of users has changed."""
_AT_ONCE: Final = 2
"""Passwords that are checked at once: each takes 32 MiB."""
_MOST_WAITING: Final = 128
"""Passwords that are checked or wait for it: a class that signs in at once."""
_NO_HASH: Final = f"$scrypt$ln={LOG_COST},r=8,p=3${'A' * 22}${'A' * 43}"
"""The hash with which a password is compared if no user has the name."""
_MOST_KNOWN: Final = 256
"""Right passwords that are remembered, so that not each request of a program costs a hash."""

_logger = logging.getLogger(__name__)


class TooManyGuesses(RabbitryError):
    """An address or a name has to wait before the next password is checked.

    Attributes:
        seconds: The whole seconds to wait, at least 1.
    """

    def __init__(self, why: str, seconds: float) -> None:
        self.seconds: int = max(1, math.ceil(seconds))
        super().__init__(f"{why}: try again in {self.seconds} s")


@dataclass(frozen=True, slots=True)
class Person:
    """A person whose password was right. is_shared: it was the shared password, with which the name may be any."""

    name: str
    is_shared: bool


class Accounts:
    """The people who may sign in.

    Args:
        file: The file of users, which need not exist.
        password: The shared password, with which every name that is not in the file is an admin; None for none.
        changed: Called with the names whose role or password changed, or that are gone, when the file changed.

    Raises:
        UsageError: The file is there and can't be used.
    """

    def __init__(self, file: Path, password: str | None, changed: Callable[[frozenset[str]], None]) -> None:
        self._file = file
        self._password = password
        self._changed = changed
        self._users: Mapping[str, Account] | None = read_users(file) if has_users(file) else None
        self._complaint = ""
        # The shared password takes any name, so that only the address limits guessing it.
        self._addresses = Guesses(free=FREE_TOGETHER if password is None else FREE)
        self._names = Guesses()
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, Person] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[Person | None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._reading = asyncio.Lock()

    @property
    def has_login(self) -> bool:
        """Whether people have to sign in: true with a file of users or a shared password."""
        return self._users is not None or self._password is not None

    def role_of(self, person: Person) -> Role:
        """Return a person's role; Role.ANYONE if they may not sign in any more."""
        account = (self._users or {}).get(person.name)
        if person.is_shared:
            return Role.ADMIN if self._password is not None and account is None else Role.ANYONE
        return Role.ANYONE if account is None else ROLES[account.role]

    def apps_of(self, person: Person) -> Mapping[str, AppRole]:
        """Return a person's roles in apps, by app."""
        account = None if person.is_shared else (self._users or {}).get(person.name)
        return {} if account is None else account.apps

    def is_first(self, name: str, password: str) -> bool:
        """Return whether a password is the first one of an invited person, with which they choose their own.

        It is compared as the token of a link is, whose guesses need no limit.
        """
        account = (self._users or {}).get(name)
        return account is not None and is_invitation(account, password)

    async def accept(self, token: str, password: str, peer: str) -> Person:
        """Set the password of an invited person, and return the person.

        Args:
            token: The token of the invitation, which is used up.
            password: The new password.
            peer: The address of the request, for the limit of wrong tokens.

        Raises:
            TooManyGuesses: The address has to wait first.
            InvitationRefused: The invitation was used or replaced, has expired, or never was.
            UsageError: The password is too short or too long, or the file of users can't be changed.
        """
        check_password(password)
        # Each wrong token costs reading the file of users.
        async with self._addresses.trying(peer, _too_many(f"from {peer}")):
            try:
                async with self._turns:
                    name = await asyncio.to_thread(accept, self._file, token, password)
            except InvitationRefused:
                self._addresses.wrong(peer)
                _logger.warning("an invitation was refused from %s", peer)
                raise
        await self._read_again()
        return Person(name, is_shared=False)

    async def check(self, name: str, password: str, peer: str) -> Person | None:
        """Return the person with a name and a password; None if they are wrong.

        Cancelling leaves the check running; its result counts.

        Args:
            name: The name.
            password: The password.
            peer: The address of the request, for the limit of wrong passwords.

        Raises:
            TooManyGuesses: The address or the name has to wait first, even with the right password.
        """
        # The shared password takes any name, which comes into logs and headers.
        if len(name) > LONGEST_NAME or len(password) > LONGEST_PASSWORD or not name.isprintable():
            return None
        text = f"{name}\0{password}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, key=self._key, digest_size=32).digest()
        if (known := self._known.get(digest)) is not None and self.role_of(known) is not Role.ANYONE:
            self._known.move_to_end(digest)
            return known
        # A program may send several requests at once: they are one attempt.
        checking = self._checking.get(digest)
        if checking is None:
            checking = self._begin(digest, name, password, peer)
        return await asyncio.shield(checking)

    def _begin(self, digest: bytes, name: str, password: str, peer: str) -> asyncio.Task[Person | None]:
        if len(self._checking) >= _MOST_WAITING:
            raise TooManyGuesses("Too many people sign in at once", 1)
        task = asyncio.create_task(self._try(digest, name, password, peer), name="a password")
        self._checking[digest] = task
        task.add_done_callback(partial(self._end, digest))
        return task

    def _end(self, digest: bytes, task: asyncio.Task[Person | None]) -> None:
        del self._checking[digest]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    async def _try(self, digest: bytes, name: str, password: str, peer: str) -> Person | None:
        async with (
            self._addresses.trying(peer, _too_many(f"from {peer}")),
            self._names.trying(name, _too_many("for this name")),
        ):
            person = await self._check(digest, name, password, peer)
            if person is None:
                self._addresses.wrong(peer)
                self._names.wrong(name)
            return person

    async def _check(self, digest: bytes, name: str, password: str, peer: str) -> Person | None:
        stored = self._stored(name)
        # An unknown name costs the same work, so that the time does not reveal which names exist.
        hashed = stored or _NO_HASH
        is_right = False
        if self._users is not None:
            async with self._turns:
                is_right = await asyncio.to_thread(is_password, password, hashed)
        if self._stored(name) != stored:
            is_right = False  # it was replaced, or the user removed, while the old one was checked
        is_shared = stored is None
        if is_shared:
            given, shared = password.encode("utf-8", "surrogatepass"), (self._password or "").encode()
            is_right = secrets.compare_digest(given, shared) and self._password is not None
        if not is_right:
            _logger.warning("sign-in refused for %r from %s", name, peer)
            return None
        person = Person(name, is_shared)
        self._known[digest] = person
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return person

    def _stored(self, name: str) -> str | None:
        """Return the hash of a user's password; empty if none is set yet, None if nobody has the name."""
        account = (self._users or {}).get(name)
        return None if account is None else account.password

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the file of users again when it changes, while the block runs."""
        watching = asyncio.create_task(self._watch(), name="the file of users")
        try:
            yield
        finally:
            tasks = [watching, *self._checking.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _watch(self) -> None:
        seen: tuple[int, ...] | None = None
        while True:
            state = await asyncio.to_thread(_state, self._file)
            if state != seen:
                seen = state
                await self._read_again()
            await asyncio.sleep(LOOK_AGAIN)

    async def _read_again(self) -> None:
        """Read the file again. A file that has become unusable is logged and changes nothing."""
        # One after another, so that what was read later can't be replaced by what was read before.
        async with self._reading:
            await self._take_file()

    async def _take_file(self) -> None:
        before = self._users
        try:
            if before is None and not await asyncio.to_thread(self._file.exists):
                return
            users = await asyncio.to_thread(read_users, self._file)
        except UsageError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _logger.warning("the users stay as they were: %s", error)
            return
        self._complaint = ""
        if users == before:
            return
        self._users = users
        self._known.clear()
        names = {*users, *(before or {})}
        self._changed(frozenset(name for name in names if users.get(name) != (before or {}).get(name)))


def _too_many(of: str) -> Callable[[float], TooManyGuesses]:
    return partial(TooManyGuesses, f"Too many wrong passwords {of}")


def _state(file: Path) -> tuple[int, ...]:
    """Return values of which one changes when a file is changed or replaced; empty for a missing file."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
