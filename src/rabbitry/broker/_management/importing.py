"""Importing definitions: a document is checked as a whole before any of it is applied.

As on RabbitMQ, existing exchanges and queues are not changed. Names that begin with `amq.`, which are the broker's own,
and bindings whose source or destination does not exist are left out. Applying a checked document can't fail: objects
that a client declares or deletes in the meantime are treated the same way.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import Refusal
from rabbitry.broker._exchanges import TYPES, Exchange, types_of
from rabbitry.broker._management import accounts, definitions
from rabbitry.broker._management.call import Answer, bad
from rabbitry.broker._management.definitions import BadDefinition, flag, named, short, table, text
from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.reading import Document
from rabbitry.broker._patterns import check_pattern
from rabbitry.broker._policies import OPERATOR_POLICY, POLICY, Policies
from rabbitry.broker._queues.arguments import Kind, read_rules
from rabbitry.broker._vhost import VHOST_LIMITS, VirtualHost
from rabbitry.broker.access import USER_LIMITS, Permission, TopicPermission
from rabbitry.broker.broker import Broker
from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)
_Step = Callable[[], object]
_RESERVED: Final = "amq."
_OF_BROKER: Final = ("users", "vhosts", "permissions", "topic_permissions", "global_parameters")
_OF_VHOST: Final = ("parameters", "policies", "exchanges", "queues", "bindings")


async def load(broker: Broker, document: Document, pace: Pace, only: VirtualHost | None = None) -> None:
    """Declare everything in a document.

    It is read twice, first to check it and then to apply it, so that little of it is in memory at a time.
    Raises BadDefinition, Answer, UsageError or the broker's refusal, before anything is changed.

    Args:
        broker: The broker.
        document: The document.
        pace: Lets the event loop run in between.
        only: The virtual host to import into; users and everything else outside of virtual hosts are then left out, as
            on RabbitMQ.
    """
    sections = (*(() if only is not None else _OF_BROKER), *_OF_VHOST)
    async with pace:
        plan = _Plan(broker, only)
        for section in sections:
            if section in document.values:
                raise BadDefinition(f"{section} must be a list of objects")
            for item in document.elements(section):
                plan.read(section, item)
                await pace.rest()
        unknown = [name for name in document.lists if name not in (*_OF_BROKER, *_OF_VHOST)]
        if unknown := [name for name in unknown if any(True for _ in document.elements(name))]:
            raise BadDefinition(f"{', '.join(unknown)}: this broker has no such sections; remove them")
    left_out = plan.left_out
    plan.carry_out()
    async with pace:
        for section in sections:
            await pace.go_over(plan.making(section, document.elements(section)), broker.journal)
    if left_out:
        _logger.info("definitions: left out %d reserved names and bindings with a missing end", left_out)


class _Plan:
    """The steps of an import, each element checked against the broker's objects and the elements before it."""

    def __init__(self, broker: Broker, only: VirtualHost | None) -> None:
        self.left_out = 0
        self._readers: Mapping[str, Callable[[Json], _Step | None]] = {
            "users": self._user,
            "vhosts": self._vhost,
            "permissions": self._permission,
            "topic_permissions": self._topic_permission,
            "global_parameters": self._global_parameter,
            "parameters": self._parameter,
            "policies": self._policy,
            "exchanges": self._exchange,
            "queues": self._queue,
            "bindings": self._binding,
        }
        self._broker = broker
        self._only = only
        self._users = set(broker.access.users)
        self._vhosts = set(broker.vhosts)
        self._queues: dict[tuple[str, str], Kind] = {}
        """Virtual host and name of queues to declare → their kinds."""
        self._exchanges: dict[tuple[str, str], str] = {}
        """Virtual host and name of exchanges to declare → the types that route."""

    def read(self, section: str, item: object) -> _Step | None:
        """Check an element. Return the function that declares it; if that returns an iterator, consume it."""
        if not isinstance(item, dict):
            raise BadDefinition(f"{section} must be a list of objects")
        return self._readers[section](item)

    def carry_out(self) -> None:
        """Start to declare the checked elements: `making` is called with the same ones."""
        self._queues.clear()
        self._exchanges.clear()

    def making(self, section: str, items: Iterable[object]) -> Iterator[None]:
        """Declare checked elements, in steps, except for those that clients have meanwhile made impossible."""
        for item in items:
            try:
                step = self.read(section, item)
                further = step() if step is not None else None
                if isinstance(further, Iterator):
                    yield from further
            except (Answer, BadDefinition, Refusal, UsageError) as error:
                _logger.warning("definitions: skipped an element of %s: %s", section, error)
            yield

    # -- of the broker ---------------------------------------------------------------------------------

    def _user(self, item: Json) -> _Step | None:
        name = named(item)
        if "tags" not in item:
            raise bad("tags_not_present")
        limits = definitions.limits(item["limits"], USER_LIMITS, "user-limits") if "limits" in item else None
        self._users.add(name)
        return functools.partial(self._make_user, name, accounts.read(item), limits)

    def _make_user(self, name: str, account: tuple[str, list[str], str], limits: dict[str, int] | None) -> None:
        self._broker.access.put_user(name, *account)
        if limits is not None:
            self._broker.access.put_limits(name, limits)

    def _vhost(self, item: Json) -> _Step | None:
        name = named(item)
        metadata = item.get("metadata")
        given = {**metadata, **item} if isinstance(metadata, dict) else item
        description, tags = given.get("description"), accounts.read_tags(given) if "tags" in given else None
        if description is not None and not isinstance(description, str):
            raise BadDefinition(f"description of virtual host {name!r} must be a string")
        limits = definitions.limits(item["limits"], VHOST_LIMITS, "limits") if item.get("limits") else None
        self._vhosts.add(name)
        return functools.partial(self._make_vhost, name, description, tags, limits)

    def _make_vhost(
        self, name: str, description: str | None, tags: list[str] | None, limits: dict[str, int] | None
    ) -> Iterator[None]:
        yield from self._broker.rest_of_deletion(name)
        self._broker.add_vhost(name)
        vhost = self._broker.vhosts[name]
        before = vhost.description, vhost.tags, vhost.limits
        vhost.description = vhost.description if description is None else description
        vhost.tags = vhost.tags if tags is None else tuple(tags)
        vhost.limits = vhost.limits if limits is None else limits
        if before != (vhost.description, vhost.tags, vhost.limits):
            vhost.store()

    def _permission(self, item: Json) -> _Step | None:
        user, vhost = self._known_user(item), self._known_vhost(item)
        permission = Permission(*(self._pattern(item, kind) for kind in Permission._fields))
        return functools.partial(self._unless_gone, self._broker.access.put_permission, vhost, user, permission)

    def _topic_permission(self, item: Json) -> _Step | None:
        user, vhost, exchange = self._known_user(item), self._known_vhost(item), short(item, "exchange")
        permission = TopicPermission(*(self._pattern(item, kind) for kind in TopicPermission._fields))
        return functools.partial(
            self._unless_gone, self._broker.access.put_topic_permission, vhost, user, exchange, permission
        )

    def _unless_gone(self, put: Callable[..., None], vhost: str, user: str, *rest: object) -> None:
        if vhost in self._broker.vhosts and user in self._broker.access.users:
            put(vhost, user, *rest)

    def _pattern(self, item: Json, name: str) -> str:
        pattern = text(item, name)
        try:
            check_pattern(pattern)
        except UsageError as error:
            raise BadDefinition(f"permissions of {item.get('user')!r}: invalid regular expression: {error}") from error
        return pattern

    def _global_parameter(self, item: Json) -> _Step | None:
        if item.get("value") is None:
            raise BadDefinition(f"global parameter {named(item)!r} has no value")
        return functools.partial(self._broker.parameters.put, named(item), item["value"])

    # -- of virtual hosts ------------------------------------------------------------------------------

    def _parameter(self, item: Json) -> _Step | None:
        vhost, component, name = self._known_vhost(item), text(item, "component"), text(item, "name")
        value = item.get("value")
        if component == OPERATOR_POLICY and isinstance(value, dict):
            return self._policy({**value, "vhost": vhost, "name": name}, self._broker.operator_policies)
        where = f" ({vhost}/{component}/{name})"
        try:
            limits = parameter(component, name, value)
        except BadDefinition as error:
            raise BadDefinition(f"{error}{where}") from error
        return functools.partial(self._set_limits, vhost, limits)

    def _set_limits(self, name: str, limits: dict[str, int]) -> None:
        vhost = self._broker.vhosts.get(name)
        if vhost is not None:
            vhost.limits = limits
            vhost.store()

    def _policy(self, item: Json, policies: Policies | None = None) -> _Step | None:
        vhost, name = self._known_vhost(item), named(item)
        try:
            release, component = self._broker.config.release, POLICY if policies is None else OPERATOR_POLICY
            policy = definitions.policy(vhost, name, item, release, component)
        except BadDefinition as error:
            raise BadDefinition(f"{error} ({vhost}/{name})") from error
        return lambda: self._broker.putting_policy(policy, policies) if vhost in self._broker.vhosts else None

    def _exchange(self, item: Json) -> _Step | None:
        vhost, name, kind = self._known_vhost(item), short(item, "name"), text(item, "type")
        host = self._broker.vhosts.get(vhost)
        flags = {one: flag(item, one) for one in ("durable", "auto_delete", "internal")}
        arguments = table(item.get("arguments"))
        if not name or name.startswith(_RESERVED):
            self.left_out += 1
            return None
        if (vhost, name) in self._exchanges or (host is not None and name in host.exchanges):
            return None
        if kind not in types_of(self._broker.config.release):
            raise BadDefinition(f"unknown exchange type '{kind}'" if kind else "invalid exchange type ''")
        other = arguments.get("alternate-exchange", "")
        if not isinstance(other, str):
            raise BadDefinition(f"alternate-exchange of exchange {name!r} must be a string")
        TYPES[kind].check_arguments(arguments)
        self._exchanges[vhost, name] = str(arguments["x-delayed-type"]) if TYPES[kind].has_delays else kind
        return functools.partial(self._declare_exchange, vhost, name, kind, flags, arguments)

    def _declare_exchange(self, vhost: str, name: str, kind: str, flags: dict[str, bool], arguments: Table) -> None:
        host = self._broker.vhosts.get(vhost)
        if host is not None and name not in host.exchanges:
            host.declare_exchange(
                name,
                kind,
                durable=flags["durable"],
                auto_delete=flags["auto_delete"],
                internal=flags["internal"],
                arguments=arguments,
            )

    def _queue(self, item: Json) -> _Step | None:
        vhost, name = self._known_vhost(item), named(item)
        host = self._broker.vhosts.get(vhost)
        durable, auto_delete = flag(item, "durable"), flag(item, "auto_delete")
        arguments = table(item.get("arguments"))
        if name.startswith(_RESERVED):
            self.left_out += 1
            return None
        if (vhost, name) in self._queues or (host is not None and name in host.queues):
            return None
        rules = read_rules(
            name,
            vhost,
            arguments,
            self._broker.config.release,
            durable=durable,
            exclusive=False,
            auto_delete=auto_delete,
        )
        self._queues[vhost, name] = rules.kind
        return functools.partial(
            self._declare_queue, vhost, name, durable=durable, auto_delete=auto_delete, arguments=arguments
        )

    def _declare_queue(self, vhost: str, name: str, *, durable: bool, auto_delete: bool, arguments: Table) -> None:
        host = self._broker.vhosts.get(vhost)
        if host is not None and name not in host.queues:
            host.declare_queue(
                name, None, durable=durable, exclusive=False, auto_delete=auto_delete, arguments=arguments
            )

    def _binding(self, item: Json) -> _Step | None:
        vhost = self._only.name if self._only is not None else text(item, "vhost")
        source, destination, key = (short(item, name) for name in ("source", "destination", "routing_key"))
        kind, arguments = text(item, "destination_type"), table(item.get("arguments"))
        if kind not in ("queue", "exchange"):
            raise BadDefinition(f"destination_type must be queue or exchange, not {kind!r}")
        kinds = self._type_of(vhost, source), self._type_of(vhost, destination) if kind == "exchange" else ""
        queue = self._kind_of(vhost, destination) if kind == "queue" else None
        if not source or None in kinds or (kind == "queue" and queue is None):
            self.left_out += 1
            return None
        if kinds[0]:
            TYPES[kinds[0]].check_binding(key, arguments)
            TYPES[kinds[0]].check_destination(queue)
        return functools.partial(self._bind, vhost, source, kind, destination, key, arguments)

    def _bind(self, vhost: str, source: str, kind: str, name: str, key: str, arguments: Table) -> None:
        host = self._broker.vhosts.get(vhost)
        if host is not None and source in host.exchanges:
            destination = host.queues.get(name) if kind == "queue" else host.exchanges.get(name)
            if destination is not None:
                host.bind(source, destination, key, arguments)

    def _type_of(self, vhost: str, name: str) -> str | None:
        host = self._broker.vhosts.get(vhost)
        known: Exchange | None = host.exchanges.get(name) if host is not None else None
        is_given = name.startswith(_RESERVED) and vhost in self._vhosts  # each virtual host has them
        return known.routing_type if known is not None else self._exchanges.get((vhost, name), "" if is_given else None)

    def _kind_of(self, vhost: str, name: str) -> Kind | None:
        host = self._broker.vhosts.get(vhost)
        known = host.queues.get(name) if host is not None else None
        return known.rules.kind if known is not None else self._queues.get((vhost, name))

    # -- names -----------------------------------------------------------------------------------------

    def _known_vhost(self, item: Json) -> str:
        if self._only is not None:
            return self._only.name
        name = item.get("vhost", "undefined")
        if name not in self._vhosts:
            raise bad(["no_such_vhost", name])
        return str(name)

    def _known_user(self, item: Json) -> str:
        name = item.get("user", "undefined")
        if name not in self._users:
            raise bad(["no_such_user", name])
        return str(name)


def parameter(component: str, name: str, value: object) -> dict[str, int]:
    """Parse a virtual host's parameter from JSON; limits are the only kind.

    Raises:
        BadDefinition: It is another component's, or its value is invalid.
    """
    if component == "policy":
        raise BadDefinition("policies may not be set using this method")
    if component == OPERATOR_POLICY:
        raise BadDefinition("operator policies are set at /api/operator-policies")
    if component != "vhost-limits":
        raise BadDefinition(f"Validation failed\n\ncomponent {component} not found\n")
    if name != "limits":
        raise BadDefinition(f"Validation failed\n\nthe vhost-limits parameter must be named limits, not {name}\n")
    try:
        return definitions.limits(value, VHOST_LIMITS, "limits")
    except BadDefinition as error:
        raise BadDefinition(f"Validation failed\n\n{error}\n") from error
