"""Prometheus' text format."""

import re
from functools import partial
from typing import Final, cast

import httpx
import pytest

import rabbitry
from rabbitry.apps import Metric
from rabbitry.apps.monitor.hub import METRICS_FOR, Hub
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.web.metrics import Metrics, _of_apps, _of_broker, _of_queues

_LINE = re.compile(r'# (?:HELP|TYPE) [a-z_]+ .+|[a-z_]+(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? -?[0-9.e+-]+')


def test_the_brokers_figures_have_the_names_of_the_plug_in() -> None:
    overview = {
        "rabbitmq_version": "3.10.8",
        "node": 'rabbit@"x"',
        "object_totals": {"queues": 2, "connections": 3},
        "queue_totals": {"messages": 5, "messages_ready": 4, "messages_unacknowledged": 1},
        "message_stats": {"publish": 12345678901234, "deliver": 7, "deliver_no_ack": 8},
    }
    nodes = [{"name": 'rabbit@"x"', "mem_used": 1000, "uptime": 2500, "mem_alarm": True}]
    text = "".join(_of_broker(overview, nodes))
    assert all(_LINE.fullmatch(line) for line in text.splitlines())
    for line in (
        "rabbitmq_queues 2",
        "rabbitmq_queue_messages_ready 4",
        "rabbitmq_queue_messages_unacked 1",
        "rabbitmq_channel_messages_published_total 12345678901234",
        "rabbitmq_channel_messages_delivered_ack_total 7",
        "rabbitmq_channel_messages_delivered_total 8",
        r'rabbitmq_process_resident_memory_bytes{rabbitmq_node="rabbit@\"x\""} 1000',
        r'rabbitmq_erlang_uptime_seconds{rabbitmq_node="rabbit@\"x\""} 2.5',
        r'rabbitmq_alarms_memory_used_watermark{rabbitmq_node="rabbit@\"x\""} 1',
        "# TYPE rabbitmq_channel_messages_published_total counter",
    ):
        assert line in text.splitlines()
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


_OF_NODE: Final = """
    build_info identity_info process_resident_memory_bytes resident_memory_limit_bytes disk_space_available_bytes
    process_open_fds process_max_fds process_open_tcp_sockets process_max_tcp_sockets
"""
_PLAIN: Final = """
    queue_messages_ready queue_messages_unacked connections channels queues channel_consumers
    connections_opened_total connections_closed_total channels_opened_total channels_closed_total
    queues_declared_total queues_created_total queues_deleted_total channel_messages_published_total
    channel_messages_confirmed_total channel_messages_unroutable_dropped_total
    channel_messages_unroutable_returned_total channel_messages_delivered_total channel_messages_delivered_ack_total
    channel_messages_redelivered_total channel_messages_acked_total channel_get_total channel_get_ack_total
    channel_get_empty_total
"""
_OF_PROTOCOL: Final = """
    global_publishers global_consumers global_messages_received_total global_messages_received_confirm_total
    global_messages_confirmed_total global_messages_routed_total global_messages_unroutable_dropped_total
    global_messages_unroutable_returned_total
"""
_OF_QUEUES: Final = """
    global_messages_delivered_total global_messages_delivered_consume_manual_ack_total
    global_messages_delivered_consume_auto_ack_total global_messages_delivered_get_manual_ack_total
    global_messages_delivered_get_auto_ack_total global_messages_get_empty_total global_messages_redelivered_total
    global_messages_acknowledged_total
"""
_OVERVIEW: Final[tuple[tuple[str, dict[str, str] | None], ...]] = (
    (_OF_NODE, None),
    (_PLAIN, {}),
    (_OF_PROTOCOL, {"protocol": "amqp091"}),
    (_OF_QUEUES, {"protocol": "amqp091", "queue_type": "all"}),
)
"""The metrics that versions of Grafana's dashboard RabbitMQ-Overview query, and their labels; None for further ones.

The labels are those of rabbitmq_prometheus 3.10.8 and 4.0.5, whose `queue_type` is that of a queue.
"""


@pytest.mark.parametrize("source", ["dashboard", "broker"])
async def test_the_dashboard_rabbitmq_overview_finds_its_metrics(source: str) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        for _ in range(3):
            await channel.publish(b"x", routing_key="q")
        async with channel.consume("q") as deliveries:
            (await anext(deliveries)).ack()
            if source == "broker":
                async with httpx.AsyncClient(auth=("guest", "guest")) as client:
                    text = (await client.get(f"{broker.management_url}metrics")).text
            else:
                metrics = Metrics(broker.url, broker.management_url)
                async with metrics.running():
                    text = bytes((await metrics.show()).body).decode()
    found = {line.partition(" ")[0].partition("{")[0]: line for line in text.splitlines() if not line.startswith("#")}
    for names, labels in _OVERVIEW:
        for name in names.split():
            line = found[f"rabbitmq_{name}"]
            if labels is not None:
                assert dict(re.findall(r'([a-z_]+)="([^"]*)"', line)) == labels
    for name, value in {
        "rabbitmq_global_publishers": 1,
        "rabbitmq_global_consumers": 1,
        "rabbitmq_global_messages_received_total": 3,
        "rabbitmq_global_messages_routed_total": 3,
        "rabbitmq_queues_created_total": 1,
    }.items():
        assert found[name].rpartition(" ")[2] == str(value)
    # Queries multiply by the one series of this metric, matched by the instance, for its name of node and cluster.
    identity = [line for line in text.splitlines() if line.startswith("rabbitmq_identity_info{")]
    assert len(identity) == 1
    assert re.search(
        r'rabbitmq_node="[^"]+",rabbitmq_cluster="[^"]+",rabbitmq_cluster_permanent_id="[^"]+"', identity[0]
    )
    assert re.search(r'rabbitmq_version="3\.10\.8",prometheus_plugin_version="', found["rabbitmq_build_info"])


def test_names_of_queues_are_escaped() -> None:
    body = b'[{"name": "a\\"\\\\\\nb", "vhost": "/", "messages": 3, "messages_ready": 2, "consumers": 1}]'
    lines = _of_queues(body).decode().splitlines()
    assert all(_LINE.fullmatch(line) for line in lines)
    assert r'rabbitmq_detailed_queue_messages{vhost="/",queue="a\"\\\nb"} 3' in lines
    assert r'rabbitmq_detailed_queue_messages_unacked{vhost="/",queue="a\"\\\nb"} 0' in lines


def test_machines_that_live_have_metrics_with_their_names() -> None:
    now = 1000.0
    hub = Hub("here", clock=lambda: now)
    hub.receive(b'{"hostname": "silent", "cpu": 0.5, "net": {}}', "a")
    now += METRICS_FOR + 1
    sample = (
        b'{"hostname": "ada \\"1\\"", "cpu": 0.25, "net": {"eth0": {"rx": 1200, "tx": 800}}, "disk": {"percent": 40}}'
    )
    hub.receive(sample, "b")
    (machine,) = [one for one in hub.ids() if (known := hub.whole(one)) is not None and known.host != "silent"]
    lines = "".join(_of_apps([("monitor", hub.metrics)])).splitlines()
    assert all(_LINE.fullmatch(line) for line in lines)
    labels = f'{{host="ada \\"1\\"",id="{machine}"}}'
    for line in (
        f"rabbitry_machine_cpu_usage_ratio{labels} 0.25",
        f"rabbitry_machine_network_receive_bytes_per_second{labels} 1200",
        f"rabbitry_machine_filesystem_usage_ratio{labels} 0.4",
    ):
        assert line in lines
    assert not any("silent" in line or line.startswith("rabbitry_machine_memory_usage_ratio{") for line in lines)


def test_an_app_whose_metrics_make_no_sense_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    good = Metric("rabbitry_good_ratio", "Good\nor not", [({}, 1.0)])
    bad = {
        "named": [good, Metric("not a name", "Bad", [({}, 1.0)])],
        "brokers": [good, Metric("rabbitmq_queues", "Of the broker", [({}, 1.0)])],
        "labelled": [good, Metric("rabbitry_bad", "Bad", [({"a b": ""}, 1.0)])],
        "twice": [good, good],
        "textual": [good, Metric("rabbitry_bad", "Bad", [({}, cast("float", "much"))])],
        "good": [good],
        "repeated": [good],
    }
    text = "".join(_of_apps([(name, partial(list, metrics)) for name, metrics in bad.items()]))
    assert all(_LINE.fullmatch(line) for line in text.splitlines())
    assert text.count("rabbitry_good_ratio 1\n") == 1
    assert "rabbitmq_queues" not in text
    left_out = [record.args for record in caplog.records]
    assert left_out == [(name,) for name in bad if name != "good"]
