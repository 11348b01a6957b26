"""Objects of every kind are created and deleted repeatedly: none of them stays in memory.

Objects are counted by type between three series of rounds. What leaks has grown by the number of rounds each time.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from rabbitry.amqp.protocol import methods as m
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker import _patterns as patterns
from tests.differential.peer import Peer
from tests.support.management import Api
from tests.support.waiting import eventually

_ROUNDS: Final = 8
_OWNERS: Final = ("rabbitry", "asyncio", "uvicorn", "starlette", "h11", "socket")
_CONTAINERS: Final = (dict, list, set)


def _session(broker: Broker, number: int) -> None:
    """A connection with channels, a queue, consumers, and unsettled messages, which vanishes."""
    with Peer(broker.url) as peer:
        peer.queue(f"q{number}", exclusive=True)
        for channel in (2, 3):
            peer.open(channel)
            peer.consume(f"q{number}", f"c{channel}", channel=channel)
        peer.publish("", f"q{number}", b"unsettled")
        peer.call(m.ChannelClose(200, "done"), 2)
        peer.drop()


def _topology(broker: Broker, number: int) -> None:
    """Exchanges of all types, bindings, queues of both types, messages; all deleted by the client."""
    with Peer(broker.url) as peer:
        for kind in ("direct", "fanout", "topic", "headers"):
            name = f"{kind}{number}"
            peer.call(m.ExchangeDeclare(name, kind, durable=True))
            peer.call(m.QueueDeclare(name, durable=True, arguments={"x-queue-type": "quorum", "x-expires": 60_000}))
            peer.call(m.QueueDeclare(f"{name}.classic", durable=True, arguments={"x-max-priority": 3}))
            peer.call(m.QueueBind(name, name, f"a.{number}.#", arguments={"x": number}))
            peer.call(m.ExchangeBind("amq.topic", name, f"*.{number}"))
            peer.publish(name, f"a.{number}", b"body")
            peer.publish("", f"{name}.classic", b"body")
            peer.get(f"{name}.classic", no_ack=False)
            peer.call(m.QueueDelete(name))
            peer.call(m.QueueDelete(f"{name}.classic"))
            peer.call(m.ExchangeDelete(name))


def _access(broker: Broker, number: int) -> None:
    """Users with permissions and limits, virtual hosts, policies and parameters; made and deleted over HTTP."""
    api, name = Api(broker.management_url), f"n{number}"
    anything = {"configure": ".*", "write": f"^{name}", "read": ".*"}
    steps: list[tuple[str, str, object]] = [
        ("PUT", f"/api/users/{name}", {"password": "x", "tags": "management"}),
        ("PUT", f"/api/vhosts/{name}", {}),
        ("PUT", f"/api/permissions/{name}/{name}", anything),
        ("PUT", f"/api/topic-permissions/{name}/{name}", {"exchange": "amq.topic", "write": name, "read": name}),
        ("PUT", f"/api/user-limits/{name}/max-channels", {"value": 5}),
        ("PUT", f"/api/vhost-limits/{name}/max-queues", {"value": 5}),
        ("PUT", f"/api/policies/{name}/{name}", {"pattern": f"^{name}", "definition": {"max-length": 5}}),
        ("PUT", f"/api/policies/%2F/{name}", {"pattern": f"^{name}", "definition": {"max-length": 5}}),
        ("PUT", f"/api/queues/{name}/{name}", {"durable": True}),
        ("PUT", f"/api/exchanges/{name}/{name}", {"type": "topic", "durable": True}),
        ("PUT", f"/api/global-parameters/{name}", {"value": name}),
        ("GET", "/api/overview", None),
        ("GET", "/api/queues", None),
        ("GET", "/api/definitions", None),
    ]
    for method, path, body in steps:
        assert api(method, path, body)[0] in (200, 201, 204), path
    login = broker.url.replace("guest:guest", f"{name}:x") + name
    with Peer(login) as peer:
        peer.publish("amq.topic", name, b"x")
        peer.call(m.ConfirmSelect())
    assert Api(broker.management_url, f"{name}:wrong")("GET", "/api/whoami")[0] == 401
    for path in (f"policies/%2F/{name}", f"global-parameters/{name}", f"vhosts/{name}", f"users/{name}"):
        assert api("DELETE", f"/api/{path}")[0] == 204, path


def _refusals(broker: Broker, number: int) -> None:
    """Logins that are refused, channels that are closed by errors, requests that make no sense."""
    with Peer(broker.url) as peer:
        peer.call(m.QueueDeclare(f"missing{number}", passive=True))
        peer.open(1)
        peer.call(m.BasicConsume(queue=f"missing{number}"))
        peer.open(1)
        peer.publish(f"missing{number}", "k")
        peer.quiet()
    stranger = Peer(broker.url.replace("guest:guest", f"stranger{number}:x"), log_in=False)
    stranger.raw(b"AMQP\0\0\x09\x01")
    stranger.drop()
    assert Api(broker.management_url)("GET", f"/api/queues/%2F/missing{number}")[0] == 404


def _count() -> Counter[str]:
    """Count the objects of the broker, of its servers and of plain containers by type.

    Cancelled timers do not count: the event loop drops them from time to time.
    """
    patterns._pattern.cache_clear()  # bounded: it may hold what is gone
    gc.collect()
    kinds = ((type(item), item) for item in gc.get_objects())
    return Counter(
        kind.__qualname__
        for kind, item in kinds
        if (kind in _CONTAINERS or str(kind.__module__).partition(".")[0] in _OWNERS)
        and not (isinstance(item, asyncio.TimerHandle) and item.cancelled())
    )


async def _run(broker: Broker, cycle: Callable[[Broker, int], None], numbers: Iterator[int], rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.to_thread(cycle, broker, next(numbers))
    await eventually(lambda: not broker.connections, "the end of all connections")
    await broker.journal.committed_now()


@pytest.mark.parametrize("cycle", [_session, _topology, _access, _refusals])
async def test_deleted_objects_leave_nothing_in_memory(tmp_path: Path, cycle: Callable[[Broker, int], None]) -> None:
    numbers = iter(range(1000, 2000))
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        await asyncio.to_thread(Api(broker.management_url), "GET", "/api/whoami")  # it is loaded then
        counts = []
        for _ in range(3):
            await _run(broker, cycle, numbers, _ROUNDS)
            counts.append(_count())
    first, second, third = counts
    grown = {name: min(second[name] - first[name], third[name] - second[name]) for name in third}
    assert {name: more for name, more in grown.items() if more >= _ROUNDS} == {}
