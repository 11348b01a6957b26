"""The topology, put together from lists as a management API has them."""

from typing import Any

from rabbitry.web.sources.topology import MOST_EDGES, MOST_NODES, SILENCE, Lists, Topology


def _rates(**rates: float) -> dict[str, Any]:
    return {f"{name}_details": {"rate": rate} for name, rate in rates.items()}


def _exchange(name: str, inward: float = 0, outward: float = 0) -> dict[str, Any]:
    stats = _rates(publish_in=inward, publish_out=outward)
    return {"name": name, "vhost": "/", "type": "topic", "message_stats": stats}


def _queue(name: str, inward: float = 0, outward: float = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "vhost": "/", "message_stats": _rates(publish=inward, deliver_get=outward)} | more


def _binding(source: str, queue: str, key: str = "") -> dict[str, Any]:
    ends = {"source": source, "destination": queue, "destination_type": "queue"}
    return {"vhost": "/", "routing_key": key} | ends


def _connection(name: str, shown: str = "", host: str = "10.0.0.7") -> dict[str, Any]:
    return {"name": name, "peer_host": host, "client_properties": {"connection_name": shown, "product": "pika"}}


def _channel(connection: str, number: int = 1, **rates: float) -> dict[str, Any]:
    name = f"{connection} ({number})"
    return {"name": name, "vhost": "/", "connection_details": {"name": connection}, "message_stats": _rates(**rates)}


def _consumer(queue: str, connection: str, number: int = 1) -> dict[str, Any]:
    details = {"name": f"{connection} ({number})", "connection_name": connection}
    return {"queue": {"name": queue, "vhost": "/"}, "channel_details": details}


def _published(name: str, stats: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"exchange": {"name": name, "vhost": "/"}, "stats": stats or {}}


_WORKERS = Lists(
    exchanges=[_exchange("work", 5, 5), _exchange("amq.direct"), _exchange("")],
    queues=[_queue("tasks", 5, 4, messages_ready=7, messages_unacknowledged=2, consumers=1), _queue("app.retry.1s")],
    bindings=[_binding("", "tasks", "tasks"), _binding("work", "tasks", "a"), _binding("work", "tasks", "b")],
    connections=[
        _connection("c1", "app worker pi-1 3fa (consume)"),
        _connection("c2", "app worker pi-1 3fa (publish)"),
    ],
    channels=[_channel("c1", deliver_get=4), _channel("c2", publish=5)],
    consumers=[_consumer("tasks", "c1")],
    publishes={"c2 (1)": [_published("work")]},
)


def test_messages_go_from_publisher_over_exchange_and_queue_to_consumer() -> None:
    value = Topology().update(_WORKERS, 100.0)
    edges = {key: edge["rate"] for key, edge in value.items() if key.startswith("e:")}
    assert edges == {
        "e:p:pi-1/app 3fa>x://work": 5,
        "e:x://work>q://tasks": 5,
        "e:q://tasks>c:pi-1/app 3fa": 4,
    }
    assert value["e:x://work>q://tasks"]["keys"] == ["a", "b"]
    queue = value["q://tasks"]
    assert (queue["ready"], queue["unacked"], queue["consumers"], queue["at"]) == (7, 2, 1, 100)
    assert (queue["helper"], value["q://app.retry.1s"]["helper"]) == (False, True)
    assert value["q://app.retry.1s"]["at"] is None


def test_the_connections_of_a_worker_are_one_program_on_its_machine() -> None:
    value = Topology().update(_WORKERS, 100.0)
    programs = {key: (node["name"], node["host"], node["app"]) for key, node in value.items() if key[0] in "pc"}
    assert programs == {"p:pi-1/app 3fa": ("app 3fa", "pi-1", "app"), "c:pi-1/app 3fa": ("app 3fa", "pi-1", "app")}


def test_built_in_exchanges_without_messages_are_left_out() -> None:
    assert [key for key in Topology().update(_WORKERS, 1.0) if key.startswith("x:")] == ["x://work"]


def test_what_the_default_exchange_brings_is_an_edge_of_its_own() -> None:
    lists = Lists(
        exchanges=[_exchange("", 3, 3)],
        queues=[_queue("a", 3), _queue("b")],
        bindings=[_binding("", "a", "a"), _binding("", "b", "b")],
    )
    value = Topology().update(lists, 1.0)
    assert [key for key in value if key.startswith("e:")] == ["e:x://>q://a"]
    assert value["e:x://>q://a"]["rate"] == 3


def test_a_share_that_the_broker_does_not_tell_is_none() -> None:
    lists = Lists(
        exchanges=[_exchange("one", 1, 1), _exchange("two", 2, 2), _exchange("still")],
        queues=[_queue("q", 3, 3), _queue("other", 0, 1)],
        bindings=[_binding("one", "q"), _binding("two", "q"), _binding("still", "q")],
        connections=[_connection("c")],
        channels=[_channel("c", publish=3, deliver_get=4)],
        consumers=[_consumer("q", "c"), _consumer("other", "c")],
        publishes={"c (1)": [_published("one"), _published("two", _rates(publish=2))]},
    )
    value = Topology().update(lists, 1.0)
    assert (value["e:x://one>q://q"]["rate"], value["e:x://still>q://q"]["rate"]) == (None, 0)
    assert value["e:p:10.0.0.7/pika>x://one"]["rate"] is None
    assert value["e:p:10.0.0.7/pika>x://two"]["rate"] == 2
    assert value["e:q://q>c:10.0.0.7/pika"]["rate"] is None
    assert value["c:10.0.0.7/pika"]["rate"] == 4


def test_a_program_that_is_gone_stays_for_20_s_after_its_last_message() -> None:
    topology = Topology()
    topology.update(_WORKERS, 100.0)
    without = Lists(exchanges=_WORKERS.exchanges, queues=_WORKERS.queues, bindings=_WORKERS.bindings)
    value = topology.update(without, 100.0 + SILENCE - 1)
    publisher = value["p:pi-1/app 3fa"]
    assert (publisher["gone"], publisher["rate"], publisher["at"]) == (True, 0, 100)
    assert value["e:p:pi-1/app 3fa>x://work"]["rate"] == 0
    value = topology.update(without, 100.0 + SILENCE)
    assert [key for key in value if "3fa" in key] == []


def test_a_target_that_the_broker_does_not_tell_is_the_only_exchange_that_moves_or_none() -> None:
    lists: dict[str, Any] = {
        "connections": [_connection("c")],
        "channels": [_channel("c", publish=3)],
        "publishes": {"c (1)": []},
    }
    one = Topology().update(Lists(exchanges=[_exchange("a", 3), _exchange("b")], **lists), 1.0)
    assert one["e:p:10.0.0.7/pika>x://a"]["rate"] == 3
    two = Topology().update(Lists(exchanges=[_exchange("a", 3), _exchange("b", 1)], **lists), 1.0)
    assert [key for key in two if key.startswith("e:")] == []
    assert (two["p:10.0.0.7/pika"]["untold"], "untold" in one["p:10.0.0.7/pika"]) == (True, False)


def test_a_publisher_that_pauses_is_not_gone() -> None:
    topology = Topology()
    topology.update(_WORKERS, 100.0)
    without = Lists(connections=_WORKERS.connections, exchanges=_WORKERS.exchanges)
    publisher = topology.update(without, 105.0)["p:pi-1/app 3fa"]
    assert (publisher["rate"], "gone" in publisher) == (0, False)


def test_the_same_lists_make_the_same_topology() -> None:
    topology = Topology()
    first = topology.update(_WORKERS, 100.2)
    assert topology.update(_WORKERS, 100.4) == first
    assert list(topology.update(_WORKERS, 100.4)) == list(first)


def test_of_very_many_things_those_that_move_are_kept() -> None:
    queues = [_queue(f"idle{number}") for number in range(MOST_NODES)]
    lists = Lists(queues=[*queues, _queue("full", messages_ready=1), _queue("busy", 1, 1)])
    value = Topology().update(lists, 1.0)
    assert value["left_out"] == 2
    assert {"q://busy", "q://full"} < value.keys()
    assert sum(key.startswith("q:") for key in value) == MOST_NODES


def test_queues_of_tokens_are_internal_and_no_queue_of_another_program() -> None:
    single = {"x-single-active-consumer": True}
    queues = [
        _queue("shop.slot.pack.1", arguments=single), _queue("shop.schedule.report", arguments=single),
        _queue("shop.tokens.pack", arguments={"x-expires": 1000}), _queue("exchange.rate.eur"), _queue("a.slot.b"),
    ]  # fmt: skip
    value = Topology().update(Lists(queues=queues), 1.0)
    internal = [key for key, node in value.items() if node["internal"]]
    assert internal == ["q://shop.slot.pack.1", "q://shop.schedule.report", "q://shop.tokens.pack"]


def test_of_very_many_edges_those_of_the_highest_rates_are_kept() -> None:
    exchanges = [_exchange(f"x{number}", 1) for number in range(100)]
    queues = [_queue(f"q{number}") for number in range(100)] + [_queue("busy", 5, 5)]
    bindings = [_binding(f"x{one}", f"q{other}") for one in range(100) for other in range(100)]
    lists = Lists(exchanges=exchanges, queues=queues, bindings=[*bindings, _binding("x7", "busy")])
    value = Topology().update(lists, 1.0)
    assert sum(key.startswith("e:") for key in value) == MOST_EDGES
    assert value["edges_left_out"] == 10_001 - MOST_EDGES
    assert value["e:x://x7>q://busy"]["rate"] == 5
    assert sum(key.startswith("x:") for key in value) == 100


def test_lists_of_another_shape_make_no_failure() -> None:
    odd: list[dict[str, Any]] = [{}, {"name": None, "vhost": 3, "message_stats": {}, "client_properties": []}]
    value = Topology().update(
        Lists(exchanges=odd, queues=odd, bindings=odd, connections=odd, channels=odd, consumers=odd), 1.0
    )
    assert value["q:/"]["ready"] == 0


def test_a_single_message_is_noted_though_its_rate_is_over() -> None:
    topology = Topology()
    for now, total, at in ((100, 3, None), (105, 4, 105), (110, 4, 105)):
        queue = _queue("q") | {"message_stats": {"publish": total} | _rates(publish=0)}
        assert topology.update(Lists(queues=[queue]), now)["q://q"]["at"] == at
