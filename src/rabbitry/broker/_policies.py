"""Policies: settings for all queues or exchanges whose names match a pattern (RabbitMQ's docs/parameters).

The matching policy of highest priority applies to a queue or exchange. If a queue's own arguments set the same thing,
the smaller of two numbers applies, and of two texts the argument.
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
APPLY_TO: Final = ("all", "queues", "exchanges")
ALTERNATE_EXCHANGE: Final = "alternate-exchange"


class Policy(NamedTuple):
    """A policy of one virtual host. pattern: a regular expression, searched for in names."""

    vhost: str
    name: str
    pattern: str
    definition: Table
    priority: float = 0
    apply_to: str = "all"

    def is_for(self, name: str, kind: Literal["queues", "exchanges"]) -> bool:
        """Return whether it matches a queue or exchange of that name."""
        return self.apply_to in ("all", kind) and matches(self.pattern, name)


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
    """The policies of a broker.

    Args:
        journal: Stores them.
        release: The behaviour of the broker's release of RabbitMQ.
    """

    def __init__(self, journal: Journal, release: Release) -> None:
        self._journal = journal
        self.release: Release = release
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
        check(policy, self.release)
        if self._journal.is_on:
            self._journal.put(POLICY, record_key(policy.vhost, policy.name), dict(policy._asdict()))
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
            self._journal.put(POLICY, record_key(vhost, name), None)

    def matching(self, vhost: str, name: str, kind: Literal["queues", "exchanges"]) -> Policy | None:
        """Return the policy that applies to a queue or exchange."""
        ranked = self._ranked.get(vhost)
        if ranked is None:
            own = [policy for policy in self._known.values() if policy.vhost == vhost]
            ranked = self._ranked[vhost] = sorted(own, key=lambda policy: -policy.priority)
        return next((policy for policy in ranked if policy.is_for(name, kind)), None)


def check(policy: Policy, release: Release) -> None:
    """Raise UsageError for an invalid policy, with RabbitMQ's text."""
    if policy.apply_to not in APPLY_TO:
        raise UsageError(f"apply-to '{policy.apply_to}' unrecognised; should be 'queues', 'exchanges' or 'all'")
    try:
        check_pattern(policy.pattern)
    except UsageError as error:
        text, _, position = str(error).partition(" at position ")
        wrong = f'{{"{text}",{position or 0}}}'
        raise UsageError(f"pattern should be regular expression but is invalid: {wrong}") from error
    if not policy.definition:
        raise UsageError("no policy provided")
    unknown = [
        f"{{{erlang_json(setting)},{erlang_json(value)}}}"
        for setting, value in sorted(policy.definition.items())
        if setting not in _SETTINGS or (setting.startswith("ha-") and not release.checks_mirroring)
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
