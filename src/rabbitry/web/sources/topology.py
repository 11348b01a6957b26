"""The topology: who publishes to which exchange, how messages reach queues, and who consumes these. Without I/O."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rabbitry.apps.management import part_of
from rabbitry.flow.wiring.tokens import holds_tokens
from rabbitry.runtime.addresses import is_loopback
from rabbitry.web.sources.fields import Object, number, rate, text

SILENCE: Final = 20.0
"""Seconds after its last message after which a publisher, or a consumer that is gone, is no longer shown."""
MOST_NODES: Final = 2000
"""Nodes that pages are sent at most: those that move messages, then those that hold some."""
MOST_EDGES: Final = 8000
"""Edges that pages are sent at most: those of the highest rates."""
_MOST_KEYS: Final = 5
_WORKER: Final = re.compile(r"(?P<app>.+) worker (?P<host>\S+) (?P<id>\S+) \((?:consume|publish)\)")
"""The name of a worker's connection."""
_HELPER: Final = re.compile(r".+\.(retry\.\w+|(suspects|paused)\..+|dead|cancelled)")
_BUILT_IN: Final = re.compile(r"amq\.(direct|fanout|topic|headers|match|rabbitmq\.\w+)")

Node = dict[str, Any]
Edge = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The broker's lists, as its management API has them.

    `publishes`: the name of a channel → what it published to, from the API's details of that channel.
    """

    exchanges: Sequence[Object] = ()
    queues: Sequence[Object] = ()
    bindings: Sequence[Object] = ()
    connections: Sequence[Object] = ()
    channels: Sequence[Object] = ()
    consumers: Sequence[Object] = ()
    publishes: Mapping[str, Sequence[Object]] | None = None


@dataclass(frozen=True, slots=True)
class _Client:
    """What a connection belongs to: a program on a machine. key: equal for the connections of one worker."""

    key: str
    name: str
    host: str
    app: str


class Topology:
    """The topology, put together anew from each set of lists. It remembers when each node last moved a message."""

    def __init__(self) -> None:
        self._active: dict[str, float] = {}
        self._totals: dict[str, float] = {}
        """What was published to each queue, at the last lists."""
        self._passing: dict[str, Node] = {}
        """Publishers and consumers of the last 20 s."""
        self._passing_edges: dict[str, Edge] = {}

    def update(self, lists: Lists, now: float) -> dict[str, Any]:
        """Return the topology as one object.

        Its members are nodes, `p:` publishers, `x:` exchanges, `q:` queues, `c:` consumers, and `e:` edges between
        them. A node has `kind`, `name`, `vhost`, `host`, `app`, `rate` (messages a second) and `at`, the Unix time at
        which it was last seen to move a message, or None. Queues have `ready`, `unacked`, `consumers` and `out` too.
        `untold` marks publishers of which the broker does not tell the exchange (RabbitMQ's `management.rates_mode`).
        `helper` marks retry queues, suspects and dead letters, which matter only if they are used, and `internal`
        queues of tokens and the like, which hold messages for as long as their app has a limit or a schedule. An edge
        has `from`, `to`, `rate` (None if the broker does not tell its share) and `keys`.

        Args:
            lists: The broker's lists.
            now: Unix time in seconds.
        """
        nodes: dict[str, Node] = {}
        edges: dict[str, Edge] = {}
        _add_exchanges(lists.exchanges, nodes)
        _add_queues(lists.queues, nodes)
        _add_bindings(lists.bindings, nodes, edges)
        clients = {text(one.get("name")): _client(one) for one in lists.connections}
        _add_publishers(lists, clients, nodes, edges)
        _add_consumers(lists, clients, nodes, edges)
        self._keep_passing(nodes, edges, {client.key for client in clients.values()}, now)
        self._note_growth(lists.queues, now)
        self._note_activity(nodes, now)
        return limited(nodes, edges)

    def _keep_passing(self, nodes: dict[str, Node], edges: dict[str, Edge], connected: set[str], now: float) -> None:
        """Keep publishers and consumers for as long as they are shown; `gone` if they are not connected any more."""
        for key, node in self._passing.items():
            if key not in nodes and self._active.get(key, 0) > now - SILENCE:
                nodes[key] = node | {"rate": 0.0} | ({} if key[2:] in connected else {"gone": True})
        for key, edge in self._passing_edges.items():
            if key not in edges and edge["from"] in nodes and edge["to"] in nodes:
                edges[key] = edge | {"rate": 0.0}
        self._passing = {key: node for key, node in nodes.items() if node["kind"] in ("publisher", "consumer")}
        passing = self._passing
        self._passing_edges = {
            key: edge for key, edge in edges.items() if edge["from"] in passing or edge["to"] in passing
        }

    def _note_growth(self, queues: Iterable[Object], now: float) -> None:
        """Note the queues that got messages since the last lists: the rate of a single message is soon 0 again."""
        totals = {
            f"q:{text(one.get('vhost'))}/{text(one.get('name'))}": number(part_of(one, "message_stats").get("publish"))
            for one in queues
        }
        self._active |= {key: now for key, total in totals.items() if total > self._totals.get(key, total)}
        self._totals = totals

    def _note_activity(self, nodes: dict[str, Node], now: float) -> None:
        for key, node in nodes.items():
            if node["rate"] or node.get("out"):
                self._active[key] = now
            at = self._active.get(key)
            node["at"] = None if at is None else round(at)
        self._active = {key: at for key, at in self._active.items() if key in nodes}


def limited(nodes: dict[str, Node], edges: dict[str, Edge]) -> dict[str, Any]:
    """Return at most MOST_NODES nodes, and at most MOST_EDGES edges between them.

    `left_out` is the number of nodes that are missing, `edges_left_out` that of edges, if there are any.
    """
    missing: dict[str, int] = {}
    if len(nodes) > MOST_NODES:
        first = sorted(nodes, key=lambda key: (-(nodes[key]["at"] or 0), -(nodes[key].get("ready") or 0), key))
        missing["left_out"] = len(nodes) - MOST_NODES
        nodes = {key: nodes[key] for key in first[:MOST_NODES]}
        edges = {key: edge for key, edge in edges.items() if edge["from"] in nodes and edge["to"] in nodes}
    if len(edges) > MOST_EDGES:
        # A rate that is not told may be any.
        first = sorted(edges, key=lambda key: (edges[key]["rate"] is not None, -(edges[key]["rate"] or 0), key))
        missing["edges_left_out"] = len(edges) - MOST_EDGES
        edges = {key: edges[key] for key in first[:MOST_EDGES]}
    return {**nodes, **edges, **missing}


def _add_exchanges(exchanges: Iterable[Object], nodes: dict[str, Node]) -> None:
    for one in exchanges:
        name, vhost, stats = text(one.get("name")), text(one.get("vhost")), part_of(one, "message_stats")
        nodes[f"x:{vhost}/{name}"] = {
            "kind": "exchange",
            "name": name,
            "vhost": vhost,
            "host": "",
            "app": _prefix(name),
            "type": text(one.get("type")),
            "helper": _HELPER.fullmatch(name) is not None,
            "rate": rate(stats, "publish_in"),
            "out": rate(stats, "publish_out"),
        }


def _add_queues(queues: Iterable[Object], nodes: dict[str, Node]) -> None:
    for one in queues:
        name, vhost, stats = text(one.get("name")), text(one.get("vhost")), part_of(one, "message_stats")
        nodes[f"q:{vhost}/{name}"] = {
            "kind": "queue",
            "name": name,
            "vhost": vhost,
            "host": "",
            "app": _prefix(name),
            "type": text(one.get("type")) or "classic",
            "helper": _HELPER.fullmatch(name) is not None,
            "rate": rate(stats, "publish"),
            "out": rate(stats, "deliver_get"),
            "internal": holds_tokens(name, part_of(one, "arguments")),
            "ready": number(one.get("messages_ready")),
            "unacked": number(one.get("messages_unacknowledged")),
            "consumers": number(one.get("consumers")),
        }


def _add_bindings(bindings: Iterable[Object], nodes: dict[str, Node], edges: dict[str, Edge]) -> None:
    """Add an edge for each exchange and queue (or exchange) that are bound; drop built-in exchanges without any.

    The broker tells how much comes to a queue, not from where. It is told of an edge if no other can have brought it.
    """
    keys: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for one in bindings:
        vhost, kind = text(one.get("vhost")), "q" if one.get("destination_type") == "queue" else "x"
        ends = f"x:{vhost}/{text(one.get('source'))}", f"{kind}:{vhost}/{text(one.get('destination'))}"
        if ends[0] in nodes and ends[1] in nodes:
            keys[ends].append(text(one.get("routing_key")))
            sources[ends[1]].add(ends[0])
    moving = {
        destination: {source for source in found if nodes[source]["rate"] and nodes[source]["name"]}
        for destination, found in sources.items()
    }
    for (source, destination), found in keys.items():
        is_default = not nodes[source]["name"]
        has_others = len(moving[destination]) > (source in moving[destination])
        if is_default and (has_others or not nodes[destination]["rate"] or not nodes[source]["rate"]):
            continue  # every queue is bound to the default exchange; what other exchanges can have brought is theirs
        flows = nodes[destination]["rate"] if nodes[source]["rate"] else 0.0
        shown = sorted(set(found))[:_MOST_KEYS]
        edges[f"e:{source}>{destination}"] = _edge(source, destination, None if has_others and flows else flows, shown)
    bound = {edge[end] for edge in edges.values() for end in ("from", "to")}
    for key in [key for key, node in nodes.items() if node["kind"] == "exchange" and key not in bound]:
        if not nodes[key]["rate"] and (not nodes[key]["name"] or _BUILT_IN.fullmatch(nodes[key]["name"])):
            del nodes[key]


def _add_publishers(
    lists: Lists, clients: Mapping[str, _Client], nodes: dict[str, Node], edges: dict[str, Edge]
) -> None:
    for channel in lists.channels:
        published = rate(part_of(channel, "message_stats"), "publish")
        client = clients.get(text(part_of(channel, "connection_details").get("name")))
        if client is None or not published:
            continue
        key = f"p:{client.key}"
        node = nodes.setdefault(key, _program("publisher", client, text(channel.get("vhost"))))
        node["rate"] = round(node["rate"] + published, 1)
        targets = (lists.publishes or {}).get(text(channel.get("name"))) or _only_target(node["vhost"], nodes)
        if not targets:
            node["untold"] = True
        for target in targets:
            exchange = part_of(target, "exchange")
            to = f"x:{text(exchange.get('vhost'))}/{text(exchange.get('name'))}"
            if to not in nodes:
                continue
            share = rate(part_of(target, "stats"), "publish") if target.get("stats") else None
            if share is None and len(targets) == 1:
                share = published
            name = f"e:{key}>{to}"
            edge = edges.setdefault(name, _edge(key, to, 0.0, []))
            edge["rate"] = None if share is None or edge["rate"] is None else round(edge["rate"] + share, 1)


def _only_target(vhost: str, nodes: Mapping[str, Node]) -> Sequence[Object]:
    """Return the one exchange that messages come to, if the broker does not tell where a channel publishes to.

    RabbitMQ tells it with `management.rates_mode = detailed` alone.
    """
    moving = [node for node in nodes.values() if node["kind"] == "exchange" and node["vhost"] == vhost and node["rate"]]
    return [{"exchange": {"name": node["name"], "vhost": vhost}} for node in moving] if len(moving) == 1 else ()


def _add_consumers(
    lists: Lists, clients: Mapping[str, _Client], nodes: dict[str, Node], edges: dict[str, Edge]
) -> None:
    delivered = {text(one.get("name")): rate(part_of(one, "message_stats"), "deliver_get") for one in lists.channels}
    queues_of: defaultdict[str, set[str]] = defaultdict(set)
    for one in lists.consumers:
        queues_of[_channel_of(one)].add(_queue_of(one))
    counted: set[str] = set()
    for one in lists.consumers:
        queue, channel = _queue_of(one), _channel_of(one)
        client = clients.get(text(part_of(one, "channel_details").get("connection_name")))
        if client is None or queue not in nodes:
            continue
        key = f"c:{client.key}"
        node = nodes.setdefault(key, _program("consumer", client, nodes[queue]["vhost"]))
        edge = edges.setdefault(f"e:{queue}>{key}", _edge(queue, key, 0.0, []))
        if channel in counted:
            continue
        counted.add(channel)
        got = delivered.get(channel, 0.0)
        node["rate"] = round(node["rate"] + got, 1)
        if len(queues_of[channel]) == 1:
            edge["rate"] = None if edge["rate"] is None else round(edge["rate"] + got, 1)
        elif got:
            for other in queues_of[channel]:
                # Which of its queues a channel was served from is not told.
                edges[f"e:{other}>{key}"] = _edge(other, key, None if nodes.get(other, {}).get("out") else 0.0, [])


def _channel_of(consumer: Object) -> str:
    return text(part_of(consumer, "channel_details").get("name"))


def _queue_of(consumer: Object) -> str:
    queue = part_of(consumer, "queue")
    return f"q:{text(queue.get('vhost'))}/{text(queue.get('name'))}"


def _edge(source: str, destination: str, flows: float | None, keys: list[str]) -> Edge:
    return {"from": source, "to": destination, "rate": flows, "keys": keys}


def _program(kind: str, client: _Client, vhost: str) -> Node:
    return {"kind": kind, "name": client.name, "vhost": vhost, "host": client.host, "app": client.app, "rate": 0.0}


def _client(connection: Object) -> _Client:
    """Return what a connection belongs to. The two connections of a worker, or equal ones of a machine, are one."""
    known = part_of(connection, "client_properties")
    host = text(connection.get("peer_host"))
    if is_loopback(host):
        host = "the broker's machine"
    name = text(known.get("connection_name"))
    if found := _WORKER.fullmatch(name):
        return _Client(
            f"{found['host']}/{found['app']} {found['id']}",
            f"{found['app']} {found['id']}",
            *found.group("host", "app"),
        )
    shown = name or text(known.get("product")) or text(connection.get("name"))
    return _Client(f"{host}/{shown}", shown, host, _prefix(shown))


def _prefix(name: str) -> str:
    """Return the beginning of a name, by which things are grouped where there are many."""
    return re.split(r"[.\-_:/ ]", name, maxsplit=1)[0] or name
