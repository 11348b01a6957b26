"""Policies: settings for all queues or exchanges whose names match a pattern (RabbitMQ's docs/parameters).

The matching policy of highest priority applies to a queue or exchange. If a queue's own arguments set the same thing,
the smaller of two numbers applies, and of two texts the argument. So it is with the operator policy that applies to a
queue: the smaller of two numbers, and the operator's text. A policy with a setting that a kind of queue does not have
applies to none of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker._erlang import erlang_json
from rabbitry.broker._patterns import check_pattern, matches
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.schema import record_key
from rabbitry.broker.compat import Release
from rabbitry.exceptions import UsageError

POLICY: Final = "policy"
OPERATOR_POLICY: Final = "operator_policy"
APPLY_TO: Final = ("queues", "exchanges", "all")
_KINDS: Final = ("queues", "classic_queues", "quorum_queues", "streams", "exchanges", "all")
Kind = Literal["exchanges", "classic", "quorum", "stream"]
"""What a policy applies to: exchanges, or a kind of queue."""
ALTERNATE_EXCHANGE: Final = "alternate-exchange"


class Policy(NamedTuple):
    """A policy of one virtual host. pattern: a regular expression, searched for in names."""

    vhost: str
    name: str
    pattern: str
    definition: Table
    priority: float = 0
    apply_to: str = "all"

    def is_for(self, name: str, kind: Kind, release: Release) -> bool:
        """Return whether it applies to a queue or exchange of that name."""
        queues = ("all", "queues", "streams" if kind == "stream" else f"{kind}_queues")
        targets = ("all", "exchanges") if kind == "exchanges" else queues
        unsuitable = release.not_by_policy.get(kind, ())
        return (
            self.apply_to in targets
            and not any(setting in unsuitable for setting in self.definition)
            and matches(self.pattern, name)
        )


def merged(policy: Policy | None, operator_policy: Policy | None, release: Release) -> Table:
    """Return the settings that apply: those of both policies.

    Of two numbers for one setting the stricter applies, of two texts the operator's.
    """
    settings = dict(policy.definition) if policy is not None else {}
    for setting, value in operator_policy.definition.items() if operator_policy is not None else ():
        own = settings.get(setting)
        if isinstance(own, int) and isinstance(value, int):
            settings[setting] = smaller(setting, own, value, release)
        else:
            settings[setting] = value
    return settings


def smaller(setting: str, one: int, other: int, release: Release) -> int:
    """Return the stricter of two numbers; a negative delivery limit is none in some releases."""
    if setting == "delivery-limit" and release.has_negative_limits and min(one, other) < 0:
        return max(one, other)
    return min(one, other)


def _is_count(value: FieldValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_lifetime(value: FieldValue) -> bool:
    return _is_count(value) and value != 0


def _is_text(value: FieldValue) -> bool:
    return isinstance(value, str)


def _is_overflow(value: FieldValue) -> bool:
    return value in ("drop-head", "reject-publish", "reject-publish-dlx")


def _is_one_of(*values: FieldValue) -> Callable[[FieldValue], bool]:
    return lambda value: not isinstance(value, bool) and value in values


def _is_segment_size(value: FieldValue) -> bool:
    return isinstance(value, int) and _is_count(value) and value.bit_length() < 63


def _is_age(value: FieldValue) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9]+[YMDhms]", value) is not None


def _is_integer(value: FieldValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_anything(value: FieldValue) -> bool:
    return True


_SETTINGS: Final[Mapping[str, tuple[Callable[[FieldValue], bool], str]]] = {
    "message-ttl": (_is_count, "is not a valid message TTL"),
    "expires": (_is_lifetime, "is not a valid queue expiry"),
    "max-length": (_is_count, "is not a valid maximum length"),
    "max-length-bytes": (_is_count, "is not a valid maximum length in bytes"),
    "overflow": (_is_overflow, "is not a valid overflow value"),
    "dead-letter-exchange": (_is_text, "is not a valid dead letter exchange name"),
    "dead-letter-routing-key": (_is_text, "is not a valid dead letter routing key"),
    "delivery-limit": (_is_count, "is not a valid delivery limit"),
    ALTERNATE_EXCHANGE: (_is_text, "is not a valid alternate exchange name"),
    # Settings for clusters or disks: accepted, without effect here.
    "dead-letter-strategy": (_is_one_of("at-most-once", "at-least-once"), "is not a valid dead letter strategy"),
    "queue-mode": (_is_one_of("default", "lazy"), "is not a valid queue-mode value"),
    "queue-version": (_is_one_of(1, 2), "is not a valid queue-version value"),
    "queue-master-locator": (_is_one_of("min-masters", "client-local", "random"), "invalid queue-master-locator value"),
    "queue-leader-locator": (
        _is_one_of("client-local", "balanced", "random", "least-leaders"),
        "is not a valid queue leader locator value",
    ),
    "max-in-memory-length": (_is_count, "is not a valid maximum memory in bytes"),
    "max-in-memory-bytes": (_is_count, "is not a valid maximum memory in bytes"),
    "max-age": (_is_age, "is not a valid max age"),
    "stream-max-segment-size-bytes": (_is_segment_size, "is not a valid segment size"),
    "initial-cluster-size": (_is_count, "is not a valid cluster size"),
    "target-group-size": (_is_count, "is not a valid target group size"),
    "consumer-timeout": (_is_count, "is not a valid consumer timeout"),
    "ha-mode": (_is_one_of("all", "exactly", "nodes"), "is not a valid ha-mode value"),
    "ha-params": (_is_anything, ""),
    "ha-sync-mode": (
        _is_one_of("manual", "automatic"),
        'ha-sync-mode must be "manual" or "automatic", got {}',
    ),
    "ha-sync-batch-size": (_is_lifetime, "ha-sync-batch-size takes an integer greater than 0, {} given"),
    "ha-promote-on-shutdown": (
        _is_one_of("always", "when-synced"),
        'ha-promote-on-shutdown must be "always" or "when-synced", got {}',
    ),
    "ha-promote-on-failure": (
        _is_one_of("always", "when-synced"),
        'ha-promote-on-failure must be "always" or "when-synced", got {}',
    ),
}
"""Setting → a check of its value, and RabbitMQ's error text: it follows the value, or has {} in its place."""


class Policies:
    """The policies of a broker, or its operator policies.

    Args:
        journal: Stores them.
        release: The behaviour of the broker's release of RabbitMQ.
        component: POLICY or OPERATOR_POLICY.
    """

    def __init__(self, journal: Journal, release: Release, component: str = POLICY) -> None:
        self._journal = journal
        self._release = release
        self.component: str = component
        self._known: dict[tuple[str, str], Policy] = {}
        self._ranked: dict[str, list[Policy]] = {}
        """Virtual host → its policies, highest priority first."""

    def __iter__(self) -> Iterator[Policy]:
        return iter(list(self._known.values()))

    def get(self, vhost: str, name: str) -> Policy | None:
        """Return a policy, None if there is none of this name."""
        return self._known.get((vhost, name))

    def restore(self, record: Table) -> None:
        """Restore a policy from the store."""
        definition, priority = record["definition"], record["priority"]
        policy = Policy(
            str(record["vhost"]),
            str(record["name"]),
            str(record["pattern"]),
            definition if isinstance(definition, dict) else {},
            priority if isinstance(priority, int | float) else 0,
            str(record["apply_to"]),
        )
        self._known[policy.vhost, policy.name] = policy
        self._ranked.clear()

    def put(self, policy: Policy) -> None:
        """Set a policy.

        Raises:
            UsageError: A pattern, a setting or a value is invalid.
        """
        check(policy, self._release, self.component)
        if self._journal.is_on:
            self._journal.put(self.component, record_key(policy.vhost, policy.name), dict(policy._asdict()))
        self._known[policy.vhost, policy.name] = policy
        self._ranked.clear()

    def delete(self, vhost: str, name: str) -> None:
        """Clear a policy.

        Raises:
            KeyError: There is none.
        """
        del self._known[vhost, name]
        self._ranked.clear()
        if self._journal.is_on:
            self._journal.put(self.component, record_key(vhost, name), None)

    def deleting_all(self, vhost: str) -> Iterator[None]:
        """Return the steps that clear all policies of a deleted virtual host."""
        for policy in self:
            if policy.vhost == vhost:
                self.delete(vhost, policy.name)
                yield
        self._ranked.pop(vhost, None)

    def matching(self, vhost: str, name: str, kind: Kind) -> Policy | None:
        """Return the policy that applies to a queue or exchange."""
        ranked = self._ranked.get(vhost)
        if ranked is None:
            own = [policy for policy in self._known.values() if policy.vhost == vhost]
            ranked = self._ranked[vhost] = sorted(own, key=lambda policy: -policy.priority)
        return next((policy for policy in ranked if policy.is_for(name, kind, self._release)), None)


def check(policy: Policy, release: Release, component: str = POLICY) -> None:
    """Raise UsageError for an invalid policy, with RabbitMQ's text."""
    if policy.apply_to not in (_KINDS if release.applies_to_kinds else APPLY_TO):
        known = "one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'"
        known = known if release.applies_to_kinds else "'queues', 'exchanges' or 'all'"
        raise UsageError(f"apply-to '{policy.apply_to}' unrecognised; should be {known}")
    try:
        check_pattern(policy.pattern)
    except UsageError as error:
        text, _, position = str(error).partition(" at position ")
        wrong = f'{{"{text}",{position or 0}}}'
        raise UsageError(f"pattern should be regular expression but is invalid: {wrong}") from error
    if not policy.definition:
        raise UsageError("no policy provided")
    known_settings = _SETTINGS.keys() - release.unknown_settings
    if component == OPERATOR_POLICY:
        known_settings = known_settings & set(release.operator_settings)
    unknown = [
        f"{{{erlang_json(setting)},{erlang_json(value)}}}"
        for setting, value in sorted(policy.definition.items())
        if setting not in known_settings
    ]
    if unknown:
        raise UsageError(f"[{','.join(unknown)}] are not recognised policy settings")
    is_mirrored = "ha-mode" in policy.definition
    if not is_mirrored and any(setting.startswith("ha-") for setting in policy.definition):
        raise UsageError("ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown")
    for setting, value in sorted(policy.definition.items()):
        is_right, wrong = _SETTINGS[setting]
        if setting == "delivery-limit" and release.has_negative_limits:
            is_right = _is_integer
        if not is_right(value):
            printed = erlang_json(value)
            raise UsageError(wrong.format(printed) if "{}" in wrong else f"{printed} {wrong}")
        if setting == "ha-mode":
            _check_mirroring(value, policy.definition)


def _check_mirroring(mode: FieldValue, definition: Table) -> None:
    """Raise UsageError if `ha-params` does not fit `ha-mode`: no effect here, but RabbitMQ checks it."""
    given = definition.get("ha-params")
    is_given = "ha-params" in definition
    printed = erlang_json(given) if is_given else "none"
    if mode == "all":
        if is_given:
            raise UsageError('ha-mode="all" does not take parameters')
    elif mode == "exactly":
        if not isinstance(given, int) or isinstance(given, bool) or given <= 0:
            raise UsageError(f'ha-mode="exactly" takes an integer, {printed} given')
    elif not isinstance(given, list):
        raise UsageError(f'ha-mode="nodes" takes a list, {printed} given')
    elif not given:
        raise UsageError('ha-mode="nodes" list must be non-empty')
    elif others := [node for node in given if not isinstance(node, str)]:
        raise UsageError(f'ha-mode="nodes" takes a list of strings, {erlang_json(others)} was not a string')
