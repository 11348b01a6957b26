"""Users and their permissions, as RabbitMQ keeps them (docs/access-control, docs/passwords)."""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from warren.exceptions import UsageError

Operation = Literal["configure", "write", "read"]

HASHING: Final = "rabbit_password_hashing_sha256"
IMPERSONATOR: Final = "impersonator"
_SALT_SIZE: Final = 4
_HASH_SIZE: Final = _SALT_SIZE + hashlib.sha256().digest_size
_CACHED: Final = 4096


def hash_password(password: str) -> str:
    """Hash a password as RabbitMQ's definitions hold it: base64 of a salt of 4 bytes and its SHA-256 with the text."""
    salt = secrets.token_bytes(_SALT_SIZE)
    return b64encode(salt + _digest(salt, password)).decode()


def _digest(salt: bytes, password: str) -> bytes:
    return hashlib.sha256(salt + password.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class User:
    """A user: name, hash of the password (empty: no login with a password), tags."""

    name: str
    password_hash: str = field(repr=False)
    tags: tuple[str, ...] = ()

    @classmethod
    def from_definition(cls, value: Mapping[str, object]) -> Self:
        """Read an entry of `users` in a definitions file. Raises UsageError for one that can't be used."""
        name, password_hash, tags = value.get("name"), value.get("password_hash", ""), value.get("tags", "")
        if not isinstance(name, str) or not isinstance(password_hash, str):
            raise UsageError("a user of the definitions needs name and password_hash as strings")
        if value.get("hashing_algorithm", HASHING) != HASHING:
            raise UsageError(f"user {name!r}: the only hashing_algorithm here is {HASHING}")
        try:
            size = len(b64decode(password_hash, validate=True))
        except (Base64Error, ValueError) as error:
            raise UsageError(f"user {name!r}: password_hash is not base64") from error
        if size not in (0, _HASH_SIZE):
            raise UsageError(f"user {name!r}: password_hash has {size} bytes, not {_HASH_SIZE}")
        given = tags.split(",") if isinstance(tags, str) else tags
        if not isinstance(given, list) or not all(isinstance(tag, str) for tag in given):
            raise UsageError(f"user {name!r}: tags are a list of names, or names with commas between")
        return cls(name, password_hash, tuple(tag.strip() for tag in given if tag.strip()))

    def definition(self) -> dict[str, object]:
        """Give the entry of `users` in a definitions file."""
        return {
            "name": self.name,
            "password_hash": self.password_hash,
            "hashing_algorithm": HASHING,
            "tags": list(self.tags),
            "limits": {},
        }

    def has_password(self, password: str) -> bool:
        """Whether that is the user's password, compared in constant time."""
        known = b64decode(self.password_hash)
        return bool(known) and hmac.compare_digest(known[_SALT_SIZE:], _digest(known[:_SALT_SIZE], password))


@dataclass(frozen=True)
class Permission:
    """What a user may do in a virtual host: a regular expression for each operation, found anywhere in a name.

    An empty one allows nothing but the empty name. Raises UsageError for what is no regular expression.
    """

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"

    def __post_init__(self) -> None:
        for pattern in (self.configure, self.write, self.read):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(f"{pattern!r} is no regular expression: {error}") from error

    @classmethod
    def from_definition(cls, value: Mapping[str, object]) -> Self:
        """Read an entry of `permissions` in a definitions file; user and vhost are the caller's. Raises UsageError."""
        patterns = [value.get(name) for name in ("configure", "write", "read")]
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise UsageError("a permission needs configure, write and read as strings")
        return cls(*(str(pattern) for pattern in patterns))

    def definition(self, user: str, vhost: str) -> dict[str, object]:
        """Give the entry of `permissions` in a definitions file."""
        return {
            "user": user,
            "vhost": vhost,
            "configure": self.configure,
            "write": self.write,
            "read": self.read,
        }

    def allows(self, operation: Operation, name: str) -> bool:
        """Whether the operation is allowed on a resource of that name."""
        pattern: str = getattr(self, operation)
        return re.search(pattern or "^$", name) is not None


class Users:
    """All users of a broker and their permissions. `on_change` is called after each change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._users: dict[str, User] = {}
        self._permissions: dict[tuple[str, str], Permission] = {}
        self._checked: dict[tuple[str, str, Operation, str], bool] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._users

    def put(self, user: User) -> None:
        """Add a user, or change one."""
        self._users[user.name] = user
        self._changed()

    def delete(self, name: str) -> None:
        """Delete a user and its permissions. Raises UsageError where there is none."""
        if self._users.pop(name, None) is None:
            raise UsageError(f"there is no user {name!r}")
        self._permissions = {key: value for key, value in self._permissions.items() if key[0] != name}
        self._changed()

    def permit(self, user: str, vhost: str, permission: Permission) -> None:
        """Set what a user may do in a virtual host. Raises UsageError where there is no such user."""
        if user not in self._users:
            raise UsageError(f"there is no user {user!r}")
        self._permissions[user, vhost] = permission
        self._changed()

    def revoke(self, user: str, vhost: str) -> None:
        """Take a user's permissions in a virtual host away, if there are any."""
        self._permissions.pop((user, vhost), None)
        self._changed()

    def forget_vhost(self, vhost: str) -> None:
        """Take everybody's permissions in a virtual host away."""
        self._permissions = {key: value for key, value in self._permissions.items() if key[1] != vhost}
        self._changed()

    def authenticate(self, name: str, password: str) -> bool:
        """Whether there is such a user with that password."""
        user = self._users.get(name)
        return user is not None and user.has_password(password)

    def may_enter(self, user: str, vhost: str) -> bool:
        """Whether a user has permissions in a virtual host, be they empty."""
        return (user, vhost) in self._permissions

    def may_impersonate(self, user: str) -> bool:
        """Whether a user may publish with another's user-id (RabbitMQ's docs/validated-user-id)."""
        known = self._users.get(user)
        return known is not None and IMPERSONATOR in known.tags

    def allows(self, user: str, vhost: str, operation: Operation, name: str) -> bool:
        """Whether a user may do that to the resource of that name. Results are kept until something changes."""
        key = (user, vhost, operation, name)
        allowed = self._checked.get(key)
        if allowed is None:
            permission = self._permissions.get((user, vhost))
            allowed = permission is not None and permission.allows(operation, name)
            if len(self._checked) >= _CACHED:
                self._checked.clear()
            self._checked[key] = allowed
        return allowed

    def _changed(self) -> None:
        self._checked.clear()
        self._on_change()
