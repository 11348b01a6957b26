"""Users, their tags, and what they may do in which virtual host (RabbitMQ's docs/access-control)."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.patterns import check_pattern, matches
from rabbitry.broker.records import key
from rabbitry.broker.store.journal import Journal

USER: Final = "user"
PERMISSION: Final = "permission"
HASHING: Final = "rabbit_password_hashing_sha256"
_DIGESTS: Final = {
    HASHING: "sha256",
    "rabbit_password_hashing_sha512": "sha512",
    "rabbit_password_hashing_md5": "md5",
}
HASHINGS: Final = tuple(_DIGESTS)
"""The algorithms by which the hash of a password may come, as definitions name them."""
_SALT: Final = 4

Kind = Literal["configure", "write", "read"]


class Permission(NamedTuple):
    """Patterns of the names that a user may configure, write to and read from; an empty one matches nothing."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"


class User(NamedTuple):
    """A user. password_hash: salt and hash of salt and password in base64, as RabbitMQ's; empty for no password.

    hashing: by which of HASHINGS the hash was made.
    """

    name: str
    password_hash: str
    tags: tuple[str, ...] = ()
    hashing: str = HASHING


def hash_password(password: str) -> str:
    """Hash a password with a new salt."""
    salt = secrets.token_bytes(_SALT)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class Access:
    """The users and their permissions. `generation` counts changes, for those who remember answers."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.permissions: dict[tuple[str, str], Permission] = {}
        self.generation = 0
        self.journal = Journal()

    def restore(self, records: Iterable[tuple[str, Table]]) -> None:
        """Take users and permissions that the store holds: (kind, value)."""
        for kind, value in records:
            if kind == USER:
                tags = value.get("tags")
                names = tuple(map(str, tags)) if isinstance(tags, list) else ()
                name, hashing = str(value["name"]), str(value.get("hashing", HASHING))
                self.users[name] = User(name, str(value["password_hash"]), names, hashing)
            elif kind == PERMISSION:
                patterns = Permission(str(value["configure"]), str(value["write"]), str(value["read"]))
                self.permissions[str(value["vhost"]), str(value["user"])] = patterns

    # -- changes ---------------------------------------------------------------------------------------

    def put_user(self, name: str, password_hash: str, tags: Iterable[str] = (), hashing: str = HASHING) -> None:
        """Make a user, or change one. hashing: one of HASHINGS."""
        user = User(name, password_hash, tuple(tags), hashing)
        self.users[name] = user
        self.generation += 1
        if self.journal.is_on:
            value: Table = {
                "name": name,
                "password_hash": password_hash,
                "tags": list(user.tags),
                "hashing": hashing,
            }
            self.journal.put(USER, key(name), value)

    def delete_user(self, name: str) -> None:
        """Delete a user with the permissions."""
        del self.users[name]
        self.generation += 1
        if self.journal.is_on:
            self.journal.put(USER, key(name), None)
        for vhost, user in list(self.permissions):
            if user == name:
                self.delete_permission(vhost, user)

    def put_permission(self, vhost: str, user: str, permission: Permission) -> None:
        """Set what a user may do in a virtual host. Raises UsageError for a pattern that is none."""
        for pattern in permission:
            check_pattern(pattern)
        self.permissions[vhost, user] = permission
        self.generation += 1
        if self.journal.is_on:
            value: Table = {"vhost": vhost, "user": user, **permission._asdict()}
            self.journal.put(PERMISSION, key(vhost, user), value)

    def delete_permission(self, vhost: str, user: str) -> None:
        """Take from a user what was allowed in a virtual host."""
        del self.permissions[vhost, user]
        self.generation += 1
        if self.journal.is_on:
            self.journal.put(PERMISSION, key(vhost, user), None)

    # -- questions -------------------------------------------------------------------------------------

    def is_password(self, name: str, password: str) -> bool:
        """Whether this is a user's password; an empty one never is, as on RabbitMQ.

        Takes as long for a user that does not exist.
        """
        user = self.users.get(name)
        try:
            stored = base64.b64decode(user.password_hash, validate=True) if user is not None else b""
        except ValueError:
            stored = b""
        salt, expected = stored[:_SALT], stored[_SALT:]
        digest = _DIGESTS[user.hashing if user is not None else HASHING]
        given = hashlib.new(digest, salt + password.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
        return hmac.compare_digest(given, expected or b"\0" * 32) and bool(expected and password)

    def may_enter(self, vhost: str, user: str) -> bool:
        """Whether a user has any permission in a virtual host."""
        return (vhost, user) in self.permissions

    def may_impersonate(self, user: str) -> bool:
        """Whether a user may publish with another's user-id (RabbitMQ's docs/validated-user-id)."""
        known = self.users.get(user)
        return known is not None and "impersonator" in known.tags

    def may(self, kind: Kind, vhost: str, user: str, name: str) -> bool:
        """Whether a user may configure, write to or read from something of that name."""
        permission = self.permissions.get((vhost, user))
        if permission is None:
            return False
        pattern = getattr(permission, kind)
        # An empty pattern stands for one that matches the empty name alone.
        return matches(pattern or "^$", name)


def initial_access(users: Mapping[str, str], vhosts: Iterable[str]) -> Access:
    """Let users (name → password) do everything in some virtual hosts."""
    access = Access()
    for name, password in users.items():
        access.put_user(name, hash_password(password), ("administrator",))
        for vhost in vhosts:
            access.put_permission(vhost, name, Permission())
    return access
