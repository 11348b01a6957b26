"""The management API computes its answers in slices, between which clients have their turn."""

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, cast

import pytest

from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._management import importing
from rabbitry.broker._management import pace as pace_module
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import Rates
from rabbitry.broker._management.reading import MOST_OF_ELEMENT, Document
from rabbitry.broker._store import journal
from rabbitry.broker._store.batch import Batch, Found
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.exceptions import Undecodable
from tests.support.management import Api
from tests.support.steps import take_all

_OBJECTS: Final = 60


@pytest.fixture(autouse=True)
def rests(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one at each rest of a computation, which here rests at each step, as if each took long."""
    monkeypatch.setattr(pace_module, "_SLICE", -1.0)
    rests: list[None] = []
    rest = Pace.rest

    async def counted(pace: Pace) -> None:
        rests.append(None)
        await rest(pace)

    monkeypatch.setattr(Pace, "rest", counted)
    return rests


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        vhost = broker.vhosts["/"]
        for number in range(_OBJECTS):
            name = f"q{number}"
            queue = vhost.declare_queue(
                name, None, durable=False, exclusive=False, auto_delete=False, arguments={"x-max-length": number}
            )
            vhost.bind("amq.topic", queue, name, {})
        yield broker


@pytest.mark.parametrize(
    "path",
    [
        "queues", "queues?page=1&page_size=100&sort=messages&sort_reverse=true", "queues?columns=name&sort=arguments.x",
        "queues?page=1&name=q", "bindings", "exchanges/%2F/amq.topic/bindings/source", "definitions",
        "overview", "vhosts",
    ],
)  # fmt: skip
async def test_answers_about_many_objects_are_made_in_slices(broker: Broker, path: str, rests: list[None]) -> None:
    rests.clear()
    status, _ = await asyncio.to_thread(Api(broker.management_url), "GET", f"/api/{path}")
    assert status == 200
    assert len(rests) >= _OBJECTS


async def test_an_import_is_read_and_carried_out_in_slices(broker: Broker, rests: list[None]) -> None:
    queue = {"vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}
    document = {"queues": [{**queue, "name": f"new{number}"} for number in range(_OBJECTS)]}
    api = Api(broker.management_url)
    rests.clear()
    assert await asyncio.to_thread(api, "POST", "/api/definitions", document) == (204, None)
    assert len(rests) >= 3 * _OBJECTS  # decoded, checked, declared
    assert len(broker.vhosts["/"].queues) == 2 * _OBJECTS


async def test_a_message_with_many_keys_is_routed_in_slices(broker: Broker, rests: list[None]) -> None:
    keys = [f"q{number}" for number in range(_OBJECTS)]
    message = {
        "properties": {"headers": {"CC": keys}}, "routing_key": "k", "payload": "1", "payload_encoding": "string",
    }  # fmt: skip
    rests.clear()
    answer = await asyncio.to_thread(
        Api(broker.management_url), "POST", "/api/exchanges/%2F/amq.topic/publish", message
    )
    assert answer == (200, {"routed": True})
    assert len(rests) >= _OBJECTS
    queues = broker.vhosts["/"].queues.values()
    assert [queue.published for queue in queues] == [1] * _OBJECTS


async def test_an_import_waits_while_too_many_writes_are_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests: list[None]
) -> None:
    monkeypatch.setattr(journal, "_MOST_ROWS", 10)
    most = 0
    written = SQLiteStore.apply
    crowded = cast("property", inspect.getattr_static(Journal, "is_crowded"))
    is_importing, is_crowded = threading.Event(), threading.Event()

    def watched(store: SQLiteStore, batch: Batch) -> list[Found]:
        nonlocal most
        most = max(most, len(batch.records))
        if is_importing.is_set():
            assert is_crowded.wait(timeout=30), "the import does not wait for the store"
        return written(store, batch)

    def noted(gathering: Journal) -> bool:
        if found := bool(crowded.__get__(gathering)):
            is_crowded.set()
        return found

    monkeypatch.setattr(SQLiteStore, "apply", watched)
    monkeypatch.setattr(Journal, "is_crowded", property(noted))
    queue = {"vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}
    document = {"queues": [{**queue, "name": f"new{number}"} for number in range(_OBJECTS)]}
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        is_importing.set()
        assert await asyncio.to_thread(Api(broker.management_url), "POST", "/api/definitions", document) == (204, None)
        assert len(broker.vhosts["/"].queues) == _OBJECTS
    assert 10 <= most <= 12


async def test_deletions_after_the_check_do_not_end_an_import(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(Api(broker.management_url), "PUT", "/api/vhosts/short-lived")
    carry_out = importing._Plan.carry_out

    def interrupted(plan: importing._Plan) -> None:
        take_all(broker.deleting_vhost("short-lived"))
        broker.vhosts["/"].delete_exchange("e", if_unused=False)
        broker.vhosts["/"].declare_exchange(
            "e", "headers", durable=False, auto_delete=False, internal=False, arguments={}
        )
        carry_out(plan)

    broker.vhosts["/"].declare_exchange("e", "direct", durable=False, auto_delete=False, internal=False, arguments={})
    monkeypatch.setattr(importing._Plan, "carry_out", interrupted)
    queue = {"durable": True, "auto_delete": False, "arguments": {}}
    binding = {"source": "e", "vhost": "/", "destination": "new", "destination_type": "queue", "routing_key": "k"}
    document = {
        "queues": [{**queue, "name": "new", "vhost": vhost} for vhost in ("short-lived", "/")],
        "bindings": [{**binding, "arguments": arguments} for arguments in ({"x-match": "some"}, {"x-match": "all"})],
    }
    assert await asyncio.to_thread(Api(broker.management_url), "POST", "/api/definitions", document) == (204, None)
    assert "short-lived" not in broker.vhosts
    assert [dict(item.arguments) for item in broker.vhosts["/"].exchanges["e"].bindings.values()] == [
        {"x-match": "all"}
    ]


async def test_users_are_deleted_in_slices(broker: Broker, rests: list[None]) -> None:
    for number in range(_OBJECTS):
        broker.access.put_user(f"u{number}", "")
    names = [f"u{number}" for number in range(_OBJECTS)]
    rests.clear()
    answer = await asyncio.to_thread(Api(broker.management_url), "POST", "/api/users/bulk-delete", {"users": names})
    assert answer == (204, None)
    assert len(rests) >= _OBJECTS
    assert set(broker.access.users) == {"guest"}


async def test_a_policy_reaches_many_queues_in_slices(broker: Broker, rests: list[None]) -> None:
    api, queues = Api(broker.management_url), broker.vhosts["/"].queues.values()
    for method, expected in (("PUT", 201), ("DELETE", 204)):
        rests.clear()
        body = {"pattern": "^q", "definition": {"max-length": 1}}
        assert (await asyncio.to_thread(api, method, "/api/policies/%2F/short", body))[0] == expected
        assert len(rests) >= _OBJECTS
        assert {queue.policy is not None for queue in queues} == {method == "PUT"}


async def test_counters_are_read_in_slices(broker: Broker, rests: list[None]) -> None:
    await Rates(broker, Pace()).look()
    assert len(rests) >= _OBJECTS


async def test_a_cancelled_request_does_not_block_others() -> None:
    pace = Pace()

    async def compute(steps: int) -> int:
        async with pace:
            for _ in range(steps):
                await pace.rest()
        return steps

    for turns in range(6):  # cancelled while it waits for its first slice, or for a further one, or has it
        first, second = asyncio.create_task(compute(10)), asyncio.create_task(compute(10))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert await asyncio.wait_for(compute(3), 90) == 3


async def _read(text: str | bytes) -> object:
    document = Document(bytearray(text.encode() if isinstance(text, str) else text))
    async with Pace() as pace:
        await document.read(pace)
    return {**document.values, **{name: list(document.elements(name)) for name in document.lists}}


@pytest.mark.parametrize(
    "text",
    [
        "{}", " { } ", '{"a":1}', '{"a" : [ ] , "b":[1, 2 ,{"c":["d",[]]}],"a":"last"}',
        '{"ü":"\\u00fc\\ud83d\\ude00 ü"}',
        '\n{"a":[true,false,null,-1.5e3,""]}\r\n', '{"a":{"b":[1]}}', "\ufeff{}",
        '{"a":1,"a":[2]}', '{"a":[1],"a":2}', '{"a":[1],"a":[2]}',
        json.dumps({"a": ["x" * size for size in (4000, 4090, 4096, 5000, 70_000, 1_000_000)], "b": 1}),
        json.dumps({"a": [int("7" * size) for size in range(4080, 4100)]}),
        json.dumps({"a": ["€" * 30_000, {"😀" * 5000: ["ü"] * 5000}], "b": "ü" * 3000}, ensure_ascii=False),
    ],
)  # fmt: skip
async def test_a_large_document_is_decoded_as_json_decodes_it(text: str) -> None:
    assert await _read(text) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '"x"', "{", '{"a"}', '{"a":}', '{"a":1,}', '{"a":[1,]}', '{"a":[1}', '{"a":[', '{"a":1}x',
        "{}{}", "{1:2}",
        '{"a":NaN}', '{"a":[Infinity]}', '{"a":"\\ud800"}', '{"a":["\\udc00"]}',
        b'{"a":"\xff"}', b'{"a":"\xc3', '{"a":01}',
        '{"a":[' + "[" * 100_000, '{"a":"\n"}', '{"a":["' + "x" * MOST_OF_ELEMENT + '"]}', '{"a":[,1]}',
        '{"a":[' + "1," * 3000 + "]}", '{"a":["' + "x" * 5000 + "\t" + "x" * 5000 + '"]}', '{"a":1,"b":[],}',
        b'{"a":["' + b"x" * 5000 + b'\xff"]}',
    ],
)  # fmt: skip
async def test_a_large_document_of_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Undecodable):
        await _read(text)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PUT", "/api/global-parameters/x", {"value": "x" * (1 << 20)}, 413),
        ("PUT", "/api/policies/%2F/p", {"pattern": "", "definition": {"x" * 200_000: 1}}, 400),
        ("PUT", "/api/queues/%2F/large", {"arguments": {"x": "x" * 200_000}}, 400),
        ("PUT", "/api/queues/%2F/small", {"arguments": {"x": "x" * 100_000}}, 201),
        (
            "POST",
            "/api/exchanges/%2F/amq.default/publish",
            {"properties": {}, "routing_key": "q0", "payload": "x" * (8 << 20), "payload_encoding": "string"},
            200,
        ),
        (
            "POST",
            "/api/exchanges/%2F/amq.default/publish",
            {
                "properties": {"headers": {"x": [0] * 90_000}},
                "routing_key": "",
                "payload": "",
                "payload_encoding": "string",
            },
            400,
        ),
    ],
)  # fmt: skip
async def test_a_body_that_takes_long_to_read_is_refused(
    broker: Broker, method: str, path: str, body: dict[str, object], expected: int
) -> None:
    assert (await asyncio.to_thread(Api(broker.management_url), method, path, body))[0] == expected
