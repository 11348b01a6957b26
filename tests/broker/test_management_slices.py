"""What is asked of the management API is computed in slices, between which clients have their turn."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import pytest

from rabbitry.broker import Broker
from rabbitry.broker.management import pace as pace_module
from rabbitry.broker.management.pace import Pace
from rabbitry.broker.management.rates import Rates
from rabbitry.broker.management.reading import read_object
from rabbitry.exceptions import Undecodable
from tests.support.management import Api

_OBJECTS: Final = 60


@pytest.fixture(autouse=True)
def rests(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that a computation lets others have their turn: it does at each step, as if each took long."""
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
    async with Broker(port=0, management_port=0) as broker:
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


async def test_a_cancelled_request_holds_up_no_other() -> None:
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
        assert await asyncio.wait_for(compute(3), 30) == 3


async def _read(text: str | bytes) -> object:
    async with Pace() as pace:
        return await read_object(bytearray(text.encode() if isinstance(text, str) else text), pace)


@pytest.mark.parametrize(
    "text",
    [
        "{}", " { } ", '{"a":1}', '{"a" : [ ] , "b":[1, 2 ,{"c":["d",[]]}],"a":"last"}',
        '{"ü":"\\u00fc\\ud83d\\ude00 ü"}',
        '\n{"a":[true,false,null,-1.5e3,""]}\r\n', '{"a":{"b":[1]}}', "\ufeff{}",
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
        '{"a":[' + "[" * 100_000, '{"a":"\n"}',
    ],
)  # fmt: skip
async def test_a_large_document_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Undecodable):
        await _read(text)
