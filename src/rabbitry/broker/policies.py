"""Policies: what holds for all queues or exchanges whose names match a pattern (RabbitMQ's docs/parameters).

For each queue or exchange the matching policy of highest priority holds. A queue's own arguments stand beside it:
of two numbers the smaller one holds, of two texts the argument.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker.patterns import check_pattern, matches
from rabbitry.broker.queues.arguments import check_timer
from rabbitry.broker.records import key
from rabbitry.broker.store.journal import Journal
from rabbitry.exceptions import UsageError

POLICY: Final = "policy"
APPLY_TO: Final = ("all", "queues", "exchanges")
ALTERNATE_EXCHANGE: Final = "alternate-exchange"


class Policy(NamedTuple):
    """A policy of one virtual host. pattern: a regular expression, found anywhere in a name."""

    vhost: str
    name: str
    pattern: str
    definition: Table
    priority: int = 0
    apply_to: str = "all"

    def is_for(self, name: str, kind: Literal["queues", "exchanges"]) -> bool:
        """Whether it matches a queue or exchange of that name."""
        return self.apply_to in ("all", kind) and matches(self.pattern, name)


def _is_count(value: FieldValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: FieldValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and check_timer(value) is None


def _is_lifetime(value: FieldValue) -> bool:
    return _is_time(value) and value != 0


def _is_text(value: FieldValue) -> bool:
    return isinstance(value, str)


def _is_overflow(value: FieldValue) -> bool:
    return value in ("drop-head", "reject-publish", "reject-publish-dlx")


def _is_anything(value: FieldValue) -> bool:
    return True


_SETTINGS: Final[Mapping[str, Callable[[FieldValue], bool]]] = {
    "message-ttl": _is_time,
    "expires": _is_lifetime,
    "max-length": _is_count,
    "max-length-bytes": _is_count,
    "overflow": _is_overflow,
    "dead-letter-exchange": _is_text,
    "dead-letter-routing-key": _is_text,
    "delivery-limit": _is_count,
    ALTERNATE_EXCHANGE: _is_text,
    # Of a cluster's or a disk's: taken, and without a meaning here.
    "dead-letter-strategy": _is_text,
    "queue-mode": _is_text,
    "queue-version": _is_count,
    "queue-master-locator": _is_text,
    "queue-leader-locator": _is_text,
    "max-in-memory-length": _is_count,
    "max-in-memory-bytes": _is_count,
    "ha-mode": _is_text,
    "ha-params": _is_anything,
    "ha-sync-mode": _is_text,
    "ha-sync-batch-size": _is_count,
    "ha-promote-on-shutdown": _is_text,
    "ha-promote-on-failure": _is_text,
}


class Policies:
    """The policies of a broker."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._known: dict[tuple[str, str], Policy] = {}
        self._ranked: dict[str, list[Policy]] = {}
        """Virtual host → its policies, those of a higher priority first."""

    def __iter__(self) -> Iterator[Policy]:
        return iter(list(self._known.values()))

    def get(self, vhost: str, name: str) -> Policy | None:
        """Return a policy, None where there is none of this name."""
        return self._known.get((vhost, name))

    def restore(self, record: Table) -> None:
        """Take a policy that the store holds."""
        definition, priority = record["definition"], record["priority"]
        policy = Policy(
            str(record["vhost"]),
            str(record["name"]),
            str(record["pattern"]),
            definition if isinstance(definition, dict) else {},
            priority if isinstance(priority, int) else 0,
            str(record["apply_to"]),
        )
        self._known[policy.vhost, policy.name] = policy
        self._ranked.clear()

    def put(self, policy: Policy) -> None:
        """Set a policy. Raises UsageError for a pattern, a setting or a value that makes no sense."""
        check(policy)
        if self.journal.is_on:
            self.journal.put(POLICY, key(policy.vhost, policy.name), dict(policy._asdict()))
        self._known[policy.vhost, policy.name] = policy
        self._ranked.clear()

    def delete(self, vhost: str, name: str) -> None:
        """Clear a policy. Raises KeyError where there is none."""
        del self._known[vhost, name]
        self._ranked.clear()
        if self.journal.is_on:
            self.journal.put(POLICY, key(vhost, name), None)

    def matching(self, vhost: str, name: str, kind: Literal["queues", "exchanges"]) -> Policy | None:
        """Return the policy that holds for a queue or exchange."""
        ranked = self._ranked.get(vhost)
        if ranked is None:
            own = [policy for policy in self._known.values() if policy.vhost == vhost]
            ranked = self._ranked[vhost] = sorted(own, key=lambda policy: -policy.priority)
        return next((policy for policy in ranked if policy.is_for(name, kind)), None)


def check(policy: Policy) -> None:
    """Raise UsageError where a policy makes no sense."""
    if policy.apply_to not in APPLY_TO:
        raise UsageError(f"policy {policy.name!r}: apply-to is one of {', '.join(APPLY_TO)}, not {policy.apply_to!r}")
    try:
        check_pattern(policy.pattern)
    except UsageError as error:
        raise UsageError(f"policy {policy.name!r}: pattern {policy.pattern!r}: {error}") from error
    if not policy.definition:
        raise UsageError(f"policy {policy.name!r}: the definition has no setting")
    unknown = [setting for setting in policy.definition if setting not in _SETTINGS]
    if unknown:
        raise UsageError(f"policy {policy.name!r}: {', '.join(unknown)}: not recognised policy settings")
    for setting, value in policy.definition.items():
        if not _SETTINGS[setting](value):
            raise UsageError(f"policy {policy.name!r}: {value!r} is no valid {setting}")
