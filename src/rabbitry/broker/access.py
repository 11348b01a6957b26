"""Users, their tags, and their permissions in virtual hosts (RabbitMQ's docs/access-control)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._patterns import check_pattern, matches
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.schema import record_key

USER: Final = "user"
PERMISSION: Final = "permission"
TOPIC_PERMISSION: Final = "topic-permission"
USER_LIMITS: Final = ("max-connections", "max-channels")
HASHING: Final = "rabbit_password_hashing_sha256"
_DIGESTS: Final = {
    HASHING: "sha256",
    "rabbit_password_hashing_sha512": "sha512",
    "rabbit_password_hashing_md5": "md5",
}
HASHINGS: Final = tuple(_DIGESTS)
"""The algorithms of password hashes, by their names in definitions."""
_SALT: Final = 4

Kind = Literal["configure", "write", "read"]
NO_LIMITS: Final[Mapping[str, int]] = {}


class Permission(NamedTuple):
    """Patterns of the names that a user may configure, write to and read from; an empty one matches nothing."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"


class TopicPermission(NamedTuple):
    """Patterns of the routing keys that a user may publish with to a topic exchange, and bind to it with.

    `{username}` and `{vhost}` in them stand for the user and the virtual host (RabbitMQ's docs/access-control).
    """

    write: str
    read: str


class User(NamedTuple):
    """A user. password_hash: salt and hash of salt and password in base64, as in RabbitMQ; empty for no password.

    hashing: the algorithm of the hash, a key of HASHINGS. limits: by names of USER_LIMITS; a negative value means none.
    """

    name: str
    password_hash: str
    tags: tuple[str, ...] = ()
    hashing: str = HASHING
    limits: Mapping[str, int] = NO_LIMITS


def hash_password(password: str) -> str:
    """Hash a password with a new salt."""
    salt = secrets.token_bytes(_SALT)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class Access:
    """The users and their permissions. `generation` counts changes, for caches of answers.

    Args:
        journal: Stores them.
    """

    def __init__(self, journal: Journal) -> None:
        self.users: dict[str, User] = {}
        self.permissions: dict[tuple[str, str], Permission] = {}
        self.topic_permissions: dict[tuple[str, str, str], TopicPermission] = {}
        """Virtual host, user and exchange → the user's topic permission; if nothing is set, everything is allowed."""
        self.generation: int = 0
        self._journal = journal

    def clear(self) -> tuple[dict[str, User], dict[tuple[str, str], Permission]]:
        """Remove the users and permissions that the broker starts with, and return them."""
        forgotten = dict(self.users), dict(self.permissions)
        self.users.clear()
        self.permissions.clear()
        self.generation += 1
        return forgotten

    def restore(self, kind: str, value: Table) -> None:
        """Restore a record of the store: a user, a permission or a topic permission."""
        if kind == USER:
            tags = value.get("tags")
            names = tuple(map(str, tags)) if isinstance(tags, list) else ()
            name, hashing = str(value["name"]), str(value.get("hashing", HASHING))
            limits = read_limits(value.get("limits"))
            self.users[name] = User(name, str(value["password_hash"]), names, hashing, limits)
        elif kind == PERMISSION:
            patterns = Permission(str(value["configure"]), str(value["write"]), str(value["read"]))
            self.permissions[str(value["vhost"]), str(value["user"])] = patterns
        elif kind == TOPIC_PERMISSION:
            place = str(value["vhost"]), str(value["user"]), str(value["exchange"])
            self.topic_permissions[place] = TopicPermission(str(value["write"]), str(value["read"]))

    # -- changes ---------------------------------------------------------------------------------------

    def put_user(self, name: str, password_hash: str, tags: Iterable[str] = (), hashing: str = HASHING) -> None:
        """Create a user, or change one and keep its limits.

        Args:
            name: The user's name.
            password_hash: The hash of the password; an empty one matches no password.
            tags: The user's tags.
            hashing: The hash's algorithm, one of HASHINGS.
        """
        known = self.users.get(name)
        limits = known.limits if known is not None else NO_LIMITS
        self._put_user(User(name, password_hash, tuple(tags), hashing, limits))

    def put_limits(self, name: str, limits: Mapping[str, int]) -> None:
        """Set a user's limits, named as in USER_LIMITS.

        Raises:
            KeyError: There is no such user.
        """
        self._put_user(self.users[name]._replace(limits=dict(limits)))

    def _put_user(self, user: User) -> None:
        self.users[user.name] = user
        self.generation += 1
        if self._journal.is_on:
            value: Table = {
                "name": user.name,
                "password_hash": user.password_hash,
                "tags": list(user.tags),
                "hashing": user.hashing,
                "limits": dict(user.limits),
            }
            self._journal.put(USER, record_key(user.name), value)

    def delete_user(self, name: str) -> None:
        """Delete a user with its permissions."""
        del self.users[name]
        self.generation += 1
        if self._journal.is_on:
            self._journal.put(USER, record_key(name), None)
        for vhost, user in list(self.permissions):
            if user == name:
                self.delete_permission(vhost, user)
        for place in list(self.topic_permissions):
            if place[1] == name:
                self.delete_topic_permission(*place)

    def put_permission(self, vhost: str, user: str, permission: Permission) -> None:
        """Set a user's permissions in a virtual host.

        Raises:
            UsageError: A pattern is invalid.
        """
        for pattern in permission:
            check_pattern(pattern)
        self.permissions[vhost, user] = permission
        self.generation += 1
        if self._journal.is_on:
            value: Table = {"vhost": vhost, "user": user, **permission._asdict()}
            self._journal.put(PERMISSION, record_key(vhost, user), value)

    def delete_permission(self, vhost: str, user: str) -> None:
        """Delete a user's permissions in a virtual host."""
        del self.permissions[vhost, user]
        self.generation += 1
        if self._journal.is_on:
            self._journal.put(PERMISSION, record_key(vhost, user), None)

    def put_topic_permission(self, vhost: str, user: str, exchange: str, permission: TopicPermission) -> None:
        """Set the routing keys that a user may use with an exchange.

        Raises:
            UsageError: A pattern is invalid.
        """
        for pattern in permission:
            check_pattern(pattern)
        self.topic_permissions[vhost, user, exchange] = permission
        self.generation += 1
        if self._journal.is_on:
            value: Table = {"vhost": vhost, "user": user, "exchange": exchange, **permission._asdict()}
            self._journal.put(TOPIC_PERMISSION, record_key(vhost, user, exchange), value)

    def delete_topic_permission(self, vhost: str, user: str, exchange: str) -> None:
        """Delete a topic permission, so that the user may use any routing key with the exchange."""
        del self.topic_permissions[vhost, user, exchange]
        self.generation += 1
        if self._journal.is_on:
            self._journal.put(TOPIC_PERMISSION, record_key(vhost, user, exchange), None)

    # -- queries -------------------------------------------------------------------------------------

    def is_password(self, name: str, password: str) -> bool:
        """Return whether this is a user's password; an empty one never is, as on RabbitMQ.

        Takes equally long for a user that does not exist.
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
        """Return whether a user has any permission in a virtual host."""
        return (vhost, user) in self.permissions

    def may_impersonate(self, user: str) -> bool:
        """Return whether a user may publish with another's user-id (RabbitMQ's docs/validated-user-id)."""
        known = self.users.get(user)
        return known is not None and "impersonator" in known.tags

    def may(self, kind: Kind, vhost: str, user: str, name: str) -> bool:
        """Return whether a user may configure, write to or read from an object of that name."""
        permission = self.permissions.get((vhost, user))
        if permission is None:
            return False
        pattern = getattr(permission, kind)
        # An empty pattern matches only the empty name.
        return matches(pattern or "^$", name)

    def may_use_topic(self, kind: Literal["write", "read"], vhost: str, user: str, exchange: str, topic: str) -> bool:
        """Return whether a user may publish with a routing key to a topic exchange, or bind with it."""
        permission = self.topic_permissions.get((vhost, user, exchange))
        if permission is None:
            return True
        pattern: str = getattr(permission, kind)
        pattern = pattern.replace("{username}", user).replace("{vhost}", vhost)
        return matches(pattern or "^$", topic)


def read_limits(value: object) -> Mapping[str, int]:
    """Return limits from a record of the store."""
    items = value.items() if isinstance(value, dict) else ()
    return {str(name): limit for name, limit in items if isinstance(limit, int)}


def initial_access(users: Mapping[str, str], vhosts: Iterable[str], journal: Journal) -> Access:
    """Return access rights in which each user (name → password) may do everything in the given virtual hosts."""
    access = Access(journal)
    for name, password in users.items():
        access.put_user(name, hash_password(password), ("administrator",))
        for vhost in vhosts:
            access.put_permission(vhost, name, Permission())
    return access
