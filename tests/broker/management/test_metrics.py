"""`/metrics` of a broker that runs alone."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._management import pace
from rabbitry.broker.access import Permission
from rabbitry.runtime.http import prometheus
from rabbitry.web.metrics import Metrics

_VOLATILE = re.compile(r"rabbitmq_(process_|erlang_uptime|disk_space|alarms)")


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0, management_port=0, vhosts=["/", "other"])) as broker:
        yield broker


async def _fetch(broker: Broker, path: str, login: tuple[str, str] | None = ("guest", "guest")) -> httpx.Response:
    async with httpx.AsyncClient(auth=login, base_url=broker.management_url) as client:
        return await client.get(path)


async def test_they_are_those_of_the_dashboard(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("q", 'odd "\\\n'):
            await channel.declare_queue(name)
        for _ in range(3):
            await channel.publish(b"x", routing_key="q")
        async with channel.consume("q") as deliveries:
            await anext(deliveries)
            metrics = Metrics(broker.url, broker.management_url)
            async with metrics.running():
                shown = {
                    "/metrics": bytes((await metrics.show()).body).decode(),
                    "/metrics/detailed": bytes((await metrics.show_queues()).body).decode(),
                }
            for path, expected in shown.items():
                answer = await _fetch(broker, path)
                assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
                found = answer.text.splitlines()
                wanted = [line for line in expected.splitlines() if "rabbitry_broker_up" not in line]
                for line, other in zip(sorted(found), sorted(wanted), strict=True):
                    assert line == other or (_VOLATILE.match(line) and _VOLATILE.match(other))
    assert "rabbitmq_channel_messages_published_total 3" in found
    assert 'rabbitmq_detailed_queue_messages_unacked{vhost="/",queue="q"} 3' in found


async def test_they_need_a_login_and_show_the_queues_that_it_may_see(broker: Broker) -> None:
    hashed = broker.access.users["guest"].password_hash
    broker.access.put_user("plain", hashed)
    broker.access.put_user("watcher", hashed, ("monitoring",))
    broker.access.put_permission("other", "watcher", Permission("", "", ""))
    for vhost in ("/", "other"):
        broker.vhosts[vhost].declare_queue(
            f"of {vhost}", None, durable=False, exclusive=False, auto_delete=False, arguments={}
        )
    for path in ("/metrics", "/metrics/detailed"):
        for login in (None, ("guest", "wrong"), ("plain", "guest")):
            answer = await _fetch(broker, path, login)
            assert answer.status_code == 401
            assert "rabbitmq_queues" not in answer.text
        assert (await _fetch(broker, path, None)).headers["www-authenticate"].startswith("Basic ")
    text = (await _fetch(broker, "/metrics/detailed", ("watcher", "guest"))).text
    assert "rabbitmq_queues 2" in text.splitlines()
    assert 'vhost="other",queue="of other"' in text
    assert "of /" not in text


async def test_those_of_very_many_queues_leave_the_loop_to_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        broker.vhosts["/"].declare_queue(
            f"q{number}", None, durable=False, exclusive=False, auto_delete=False, arguments={}
        )
    names: list[str] = []
    at_once: list[int] = []
    rest = pace.Pace.rest

    def escaped(value: str) -> str:
        names.append(value)
        return value

    async def watched(self: pace.Pace) -> None:
        at_once.append(len(names))
        names.clear()
        await rest(self)

    monkeypatch.setattr(pace, "_SLICE", -1.0)
    monkeypatch.setattr(prometheus, "_escaped", escaped)
    monkeypatch.setattr(pace.Pace, "rest", watched)
    answer = await _fetch(broker, "/metrics/detailed")
    assert answer.text.count("rabbitmq_detailed_queue_messages{") == 200
    assert max(*at_once, len(names)) < 200
