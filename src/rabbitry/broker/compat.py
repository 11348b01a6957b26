"""The releases of RabbitMQ whose behaviour the broker can have, and all their differences, in one table.

`RELEASES` has a `Release` for each value of `BrokerConfig.compat`. Code whose behaviour differs asks one of its fields;
nothing compares versions. The differential tests (tests/differential) measured the values on 3.10.8 and 4.0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Compat = Literal["3.10", "4.0"]
"""The name of a release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The behaviour of one release of RabbitMQ where releases differ.

    Attributes:
        version: The version announced to clients and by the management API.
        mechanisms: The mechanisms of a login, in the order of connection.start. ANONYMOUS logs in as `guest`.
        protocol_header: The answer to a protocol header of another protocol.
        max_message_size: The largest body in bytes, unless it is configured.
        delivery_limit: The delivery limit of a quorum queue without one; None for no limit.
        has_negative_limits: Whether a negative delivery limit means none; otherwise the first return exceeds it.
        has_quorum_priorities: Whether a quorum queue delivers two messages of a priority above 4 for each other one.
        counts_first_get: Whether basic.get from a quorum queue has an `x-delivery-count` of 0 for a new message.
        returns_consumers_first: Whether the end of a channel returns messages of consumers to a quorum queue in the
            order of their subscriptions and before those of basic.get, and not in the order of their tags.
        owns_deaths: Whether `x-death` is the broker's own: one that a client sent is replaced, `x-last-death-…` tells
            the latest one, and a dead letter with a new routing key keeps its CC header.
        has_typed_headers: Whether a float differs from an equal integer for the headers exchange.
        hashes_header_values: Whether x-consistent-hash hashes the value of a header alone, not its type too.
        checks_delivery_mode: Whether a delivery mode must be 1 or 2.
        rewrites_expiration: Whether consumers get an expiration as a plain number: 1 for +1.
        names_refused_access: Whether the text of error 403 says which access was refused, such as configure.
        refuses_type_on_channel: Whether an unknown exchange type closes the channel (406), not the connection (503).
        unknown_settings: The settings of policies that it does not know.
        operator_settings: The settings that an operator policy may have.
        not_by_policy: Kind of queue → the settings with which no policy applies to it.
        applies_to_kinds: Whether a policy may apply to queues of one kind.
        checks_mirroring: Whether `x-queue-master-locator` of a queue, and `x-cancel-on-ha-failover` and `x-credit` of a
            consumer are checked.
        not_for_classic: The arguments that a classic queue refuses.
        has_default_type: Whether a queue without `x-queue-type` is compared as one with `x-queue-type` classic.
        keeps_transaction_queues: Whether a transaction's publishes go to the queues that existed when they arrived, and
            the commit fails (406) if one of these is deleted.
        has_stream_filters: Whether a stream's consumers may filter its messages by their `x-stream-filter-value`.
        streams_take_letters: Whether a stream gets dead letters, delayed messages and copies of the firehose.
            Otherwise it gets only dead letters of quorum queues with `x-dead-letter-strategy` at-least-once.
        has_consumer_timeouts: Whether queues may have a timeout for acknowledgements of their own.
        has_local_random: Whether it has the exchange type x-local-random.
        returns_to_streams: Whether nack, reject and recover are credit for a stream; otherwise they end the connection.
        streams_keep_nested: Whether a stream keeps CC, and other headers with `x-` that are arrays or tables, but not
            an `x-death` that a client sent. It keeps no arrays and tables without `x-`.
        streams_set_mode: Whether a message from a stream has a delivery mode even if it was published without.
        stream_noun: The noun for a stream in two of its error texts.
        feature_flags: The feature flags that `/api/feature-flags` lists as enabled, with their stability; those of
            features that this broker lacks are left out.
        deprecated_features: The deprecated features that `/api/deprecated-features` lists, with their phases.
    """

    version: str
    mechanisms: bytes
    protocol_header: bytes
    max_message_size: int
    delivery_limit: int | None
    has_negative_limits: bool
    has_quorum_priorities: bool
    counts_first_get: bool
    returns_consumers_first: bool
    owns_deaths: bool
    has_typed_headers: bool
    hashes_header_values: bool
    checks_delivery_mode: bool
    rewrites_expiration: bool
    names_refused_access: bool
    refuses_type_on_channel: bool
    unknown_settings: tuple[str, ...]
    operator_settings: tuple[str, ...]
    not_by_policy: Mapping[str, tuple[str, ...]]
    applies_to_kinds: bool
    checks_mirroring: bool
    not_for_classic: tuple[str, ...]
    has_default_type: bool
    keeps_transaction_queues: bool
    has_stream_filters: bool
    streams_take_letters: bool
    has_consumer_timeouts: bool
    has_local_random: bool
    returns_to_streams: bool
    streams_keep_nested: bool
    streams_set_mode: bool
    stream_noun: str
    feature_flags: Mapping[str, str]
    deprecated_features: Mapping[str, str]


_NOT_FOR_CLASSIC: Final = (
    "x-delivery-limit",
    "x-dead-letter-strategy",
    "x-quorum-initial-group-size",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-queue-leader-locator",
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
)
_OPERATOR_SETTINGS: Final = (
    "message-ttl",
    "expires",
    "max-length",
    "max-length-bytes",
    "delivery-limit",
    "max-in-memory-length",
    "max-in-memory-bytes",
)
_OF_STREAMS: Final = ("max-age", "stream-max-segment-size-bytes", "initial-cluster-size")
_NOT_BY_STREAM_POLICY: Final = (
    "expires",
    "message-ttl",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "max-length",
    "max-in-memory-length",
    "max-in-memory-bytes",
    "overflow",
    "queue-mode",
    "delivery-limit",
    "queue-master-locator",
)
_OF_MIRRORS: Final = (
    "ha-mode",
    "ha-params",
    "ha-sync-mode",
    "ha-sync-batch-size",
    "ha-promote-on-shutdown",
    "ha-promote-on-failure",
)
RELEASES: Final[Mapping[Compat, Release]] = {
    "3.10": Release(
        version="3.10.8",
        mechanisms=b"PLAIN AMQPLAIN",
        protocol_header=b"AMQP\x00\x00\x09\x01",
        max_message_size=128 << 20,
        delivery_limit=None,
        has_negative_limits=False,
        has_quorum_priorities=False,
        counts_first_get=True,
        returns_consumers_first=False,
        owns_deaths=False,
        has_typed_headers=False,
        hashes_header_values=False,
        checks_delivery_mode=True,
        rewrites_expiration=False,
        names_refused_access=False,
        refuses_type_on_channel=False,
        unknown_settings=("target-group-size", "consumer-timeout"),
        operator_settings=_OPERATOR_SETTINGS,
        not_by_policy={
            "classic": ("delivery-limit", "dead-letter-strategy", "queue-leader-locator", *_OF_STREAMS),
            "quorum": ("queue-mode", "queue-master-locator", *_OF_MIRRORS, *_OF_STREAMS),
            "stream": (*_NOT_BY_STREAM_POLICY, *_OF_MIRRORS),
        },
        applies_to_kinds=False,
        checks_mirroring=True,
        not_for_classic=_NOT_FOR_CLASSIC,
        has_default_type=False,
        keeps_transaction_queues=False,
        has_stream_filters=False,
        streams_take_letters=False,
        has_consumer_timeouts=False,
        has_local_random=False,
        returns_to_streams=False,
        streams_keep_nested=False,
        streams_set_mode=False,
        stream_noun="stream queues",
        feature_flags=dict.fromkeys(
            (
                "classic_mirrored_queue_version",
                "drop_unroutable_metric",
                "empty_basic_get_metric",
                "implicit_default_bindings",
                "maintenance_mode_status",
                "quorum_queue",
                "stream_queue",
                "user_limits",
                "virtual_host_metadata",
            ),
            "stable",
        ),
        deprecated_features={},
    ),
    "4.0": Release(
        version="4.0.5",
        mechanisms=b"ANONYMOUS AMQPLAIN PLAIN",
        protocol_header=b"AMQP\x03\x01\x00\x00",
        max_message_size=16 << 20,
        delivery_limit=20,
        has_negative_limits=True,
        has_quorum_priorities=True,
        counts_first_get=False,
        returns_consumers_first=True,
        owns_deaths=True,
        has_typed_headers=True,
        hashes_header_values=True,
        checks_delivery_mode=False,
        rewrites_expiration=True,
        names_refused_access=True,
        refuses_type_on_channel=True,
        unknown_settings=_OF_MIRRORS,
        operator_settings=(
            *_OPERATOR_SETTINGS,
            "overflow",
            "queue-version",
            "queue-master-locator",
            "target-group-size",
        ),
        not_by_policy={
            "classic": (
                "delivery-limit",
                "dead-letter-strategy",
                "max-in-memory-length",
                "max-in-memory-bytes",
                "target-group-size",
                *_OF_STREAMS,
            ),
            "quorum": ("queue-mode", "queue-master-locator", *_OF_STREAMS),
            "stream": (*_NOT_BY_STREAM_POLICY, "target-group-size"),
        },
        applies_to_kinds=True,
        checks_mirroring=False,
        not_for_classic=tuple(name for name in _NOT_FOR_CLASSIC if name != "x-queue-leader-locator"),
        has_default_type=True,
        keeps_transaction_queues=True,
        has_stream_filters=True,
        streams_take_letters=True,
        has_consumer_timeouts=True,
        has_local_random=True,
        returns_to_streams=True,
        streams_keep_nested=True,
        streams_set_mode=True,
        stream_noun="stream",
        feature_flags={
            "classic_mirrored_queue_version": "required",
            "classic_queue_type_delivery_support": "required",
            "detailed_queues_endpoint": "stable",
            "direct_exchange_routing_v2": "required",
            "drop_unroutable_metric": "required",
            "empty_basic_get_metric": "required",
            "feature_flags_v2": "required",
            "implicit_default_bindings": "required",
            "listener_records_in_ets": "required",
            "maintenance_mode_status": "required",
            "message_containers": "required",
            "message_containers_deaths_v2": "stable",
            "quorum_queue": "required",
            "quorum_queue_non_voters": "stable",
            "rabbit_exchange_type_local_random": "stable",
            "rabbitmq_4.0.0": "stable",
            "stream_filtering": "required",
            "stream_queue": "required",
            "tracking_records_in_ets": "required",
            "user_limits": "required",
            "virtual_host_metadata": "required",
        },
        deprecated_features={
            "queue_master_locator": "permitted_by_default",
            "management_metrics_collection": "permitted_by_default",
            "global_qos": "permitted_by_default",
            "ram_node_type": "permitted_by_default",
            "transient_nonexcl_queues": "permitted_by_default",
            "amqp_address_v1": "permitted_by_default",
            "classic_queue_mirroring": "removed",
        },
    ),
}
