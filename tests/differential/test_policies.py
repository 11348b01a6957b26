"""Policies and operator policies: what the management API answers, and what then applies, on both brokers."""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import httpx

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.testing._broker import RunningBroker
from tests.differential.peer import Peer
from tests.support.rabbitmq import COMPAT, RabbitMQ
from tests.support.waiting import WITHIN, eventually_blocking

_PATHS: Final = ("policies", "operator-policies")
_DEFINITIONS: Final[tuple[dict[str, Any], ...]] = (
    {"message-ttl": 100},
    {"max-length": 5, "expires": 1000, "delivery-limit": 3, "max-length-bytes": 7, "max-in-memory-length": 3},
    {"overflow": "reject-publish"},
    {"dead-letter-exchange": "x"},
    {"ha-mode": "all"},
    {"delivery-limit": -1},
    {"message-ttl": -1},
    {"target-group-size": 3},
    {},
)
_BOTH: Final[tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]] = (
    # The definitions of a policy and an operator policy.
    ({"message-ttl": 500, "max-length": 2, "dead-letter-exchange": "d"}, {"message-ttl": 100, "max-length": 5}),
    ({"overflow": "drop-head"}, {"max-length-bytes": 70, "expires": 100_000}),
    ({"delivery-limit": 9}, {"delivery-limit": 5}),
    ({"delivery-limit": 9}, {"max-length": 3}),
    ({"queue-mode": "lazy", "max-length": 7}, {"max-in-memory-bytes": 1}),
    ({"dead-letter-strategy": "at-least-once"}, {"message-ttl": 1}),
    ({"queue-leader-locator": "balanced"}, {"max-length": 3}),
    ({"alternate-exchange": "x", "max-length": 7}, {"max-length": 9}),
)


class _Tool:
    """A client of the management API, which logs answers."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self.log: list[object] = []
        self.url = url
        self._http = http

    def call(self, method: str, path: str, **body: object) -> None:
        answer = self._http.request(method, path, json=body or None)
        # RabbitMQ 4.0 does not escape the values in such a text.
        self.log.append((method, path, answer.status_code, answer.text.replace("&lt;", "<").replace("&gt;", ">")))

    def put(self, path: str, definition: object, **more: object) -> None:
        self.call("PUT", path, **{"pattern": "^a$", "definition": definition, **more})

    def exported(self) -> object:
        return sorted(self._http.get("definitions").json()["parameters"], key=lambda item: str(item["name"]))

    def applied(self, count: int) -> list[tuple[object, ...]]:
        """Declare a classic and a quorum queue for each of so many pairs of policies, and return what applies to them.

        All are declared first, since RabbitMQ's statistics come seconds later.
        """
        names = [(f"a{number}-{kind}", kind) for number in range(count) for kind in ("classic", "quorum")]
        with Peer(self.url) as peer:
            for name, kind in names:
                peer.call(m.QueueDeclare(name, durable=True, arguments={"x-queue-type": kind}))
            found = [self._policies_of(name) for name, _ in names]
            for name, _ in names:
                peer.call(m.QueueDelete(name))
        return found

    def _policies_of(self, name: str) -> tuple[object, ...]:
        queue: dict[str, Any] = {}

        def is_known() -> bool:
            queue.update(self._http.get(f"queues/%2F/{name}").json())
            return "policy" in queue

        eventually_blocking(is_known, f"the policies of {name}")
        settings = queue["effective_policy_definition"] or {}
        return name, queue["policy"], queue["operator_policy"], sorted(settings.items())


def _script(tool: _Tool) -> list[object]:
    for path, definition in itertools.product(_PATHS, _DEFINITIONS):
        tool.put(f"{path}/%2F/p", definition)
    for kind in ("exchanges", "quorum_queues", "nothing"):
        tool.put("operator-policies/%2F/p", {"max-length": 1}, **{"apply-to": kind})
    for path in ("operator-policies", "operator-policies/%2F", "operator-policies/%2F/p", "operator-policies/%2F/none"):
        tool.call("GET", path)
    for path in ("policies/%2F/p", "operator-policies/%2F/p", "operator-policies/%2F/p"):
        tool.call("DELETE", path)
    for number, definitions in enumerate(_BOTH):
        for path, definition in zip(_PATHS, definitions, strict=True):
            tool.put(f"{path}/%2F/p{number}", definition, pattern=f"^a{number}-", priority=1)
    tool.put("policies/%2F/lower", {"max-length": 1})
    tool.log += [*tool.applied(len(_BOTH)), tool.exported()]
    tool.call("DELETE", "policies/%2F/lower")
    return tool.log


def _limited(tool: _Tool) -> list[str]:
    """Publish to a queue whose policy allows three messages, its operator policy two, and its argument four."""
    with Peer(tool.url) as peer:
        peer.queue("a", x_max_length=4)
        tool.put("policies/%2F/p", {"max-length": 3})
        tool.put("operator-policies/%2F/p", {"max-length": 2})
        peer.call(m.ConfirmSelect())
        for number in range(6):
            peer.publish("", "a", b"%d" % number, Properties())
        peer.until_it_has("a", 2)
        tool.call("DELETE", "operator-policies/%2F/p")
        for number in range(6, 9):
            peer.publish("", "a", b"%d" % number, Properties())
        peer.until_it_has("a", 3)
        peer.call(m.QueueDelete("a"))
        tool.call("DELETE", "policies/%2F/p")
        return peer.log


def _client(management_url: str | None) -> httpx.Client:
    return httpx.Client(base_url=f"{management_url}api/", auth=("guest", "guest"), timeout=WITHIN)


def test_policies_apply_the_same_on_both_brokers(own_rabbitmq: RabbitMQ) -> None:
    with (
        RunningBroker(compat=COMPAT) as broker,
        _client(broker.management_url) as ours,
        _client(own_rabbitmq.management_url) as theirs,
    ):
        tool, their_tool = _Tool(ours, broker.url), _Tool(theirs, own_rabbitmq.url)
        for got, expected in zip(_script(tool), _script(their_tool), strict=True):
            assert got == expected
        assert _limited(tool) == _limited(their_tool)
