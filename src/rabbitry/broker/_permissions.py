"""The permissions of one client's user in its virtual host, with a cache of earlier answers."""

from __future__ import annotations

from typing import Final, Literal

from rabbitry.broker._errors import ChannelRefusal, access_refused, precondition_failed
from rabbitry.broker._exchanges import Exchange
from rabbitry.broker.access import Access, Kind
from rabbitry.broker.compat import Release

_REMEMBERED: Final = 10_000


class Permissions:
    """The permissions of a user in a virtual host.

    Args:
        access: The users and their permissions; a change of them clears the cache.
        vhost: The name of the virtual host.
        user: The name of the user.
        release: The behaviour of the broker's release of RabbitMQ.
    """

    def __init__(self, access: Access, vhost: str, user: str, release: Release) -> None:
        self._access = access
        self._vhost = vhost
        self._user = user
        self._names_kind = release.names_refused_access
        self._allowed: set[tuple[Kind, str]] = set()
        self._answers_of = access.generation

    def check(self, kind: Kind, what: str, name: str) -> None:
        """Check that the user may configure, write to or read from an exchange or queue. Raises 403."""
        access = self._access
        if self._answers_of != access.generation:
            self._allowed.clear()
            self._answers_of = access.generation
        question = (kind, name)
        if question in self._allowed:
            return
        if not access.may(kind, self._vhost, self._user, name or "amq.default"):
            where = f"{what} '{name or 'amq.default'}' in vhost '{self._vhost}'"
            raise self._refused(kind, where)
        if len(self._allowed) >= _REMEMBERED:
            self._allowed.clear()
        self._allowed.add(question)

    def check_topic(self, kind: Literal["write", "read"], exchange: Exchange, routing_key: str) -> None:
        """Check the user's permission for a routing key of a topic exchange; other exchanges need none. Raises 403."""
        access = self._access
        if not access.topic_permissions or exchange.type != "topic":
            return
        if not access.may_use_topic(kind, self._vhost, self._user, exchange.name, routing_key):
            where = f"topic '{routing_key}' in exchange '{exchange.name}' in vhost '{self._vhost}'"
            raise self._refused(kind, where)

    def _refused(self, kind: Kind, where: str) -> ChannelRefusal:
        access = f"{kind} access" if self._names_kind else "access"
        return access_refused(f"{access} to {where} refused for user '{self._user}'")

    def check_user_id(self, user_id: str | None) -> None:
        """Check the user-id of a message: it must be the user's own, unless the user may impersonate. Raises 406."""
        if user_id not in (None, self._user) and not self._access.may_impersonate(self._user):
            raise precondition_failed(f"user_id property set to '{user_id}' but authenticated user was '{self._user}'")
