"""The routes of the Dead letters view over real sockets, with the embedded broker and RabbitMQ behind them."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.telemetry import MASK, Masking
from rabbitry.web.dead.looking import Looking
from rabbitry.web.dead.routes import AT_ONCE, LONGEST_EDITED
from rabbitry.web.login.gate import Access
from rabbitry.web.login.sessions import TOKEN_HEADER as HEADER
from tests.support.ports import free_port
from tests.support.waiting import eventually_awaited
from tests.web.dead.serving import bury, count, finished, served, settled, taken
from tests.web.serving import System

pytestmark = pytest.mark.timeout(240)


def _of(app: str, **more: Any) -> dict[str, Any]:
    return {"vhost": "/", "app": app, **more}


async def _look(client: httpx.AsyncClient, system: System, path: str, asked: dict[str, Any]) -> Any:
    """Look as the page does: on RabbitMQ by POST, after it was told what that does."""
    told = await client.get(f"api/{path}", params={name: str(value) for name, value in asked.items()})
    assert told.status_code == 200, told.text
    if not system.is_rabbitmq:
        return told.json()
    assert told.json() == {"fetches": True}
    found = await client.post(f"api/{path}", json=asked)
    assert found.status_code == 200, found.text
    return found.json()


async def test_dead_letters_are_grouped_and_looked_at_and_stay(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await channel.declare_queue("seen.queue", durable=True)
        bodies = [b"%d" % number for number in range(AT_ONCE + 2)]
        await bury(channel, "seen", bodies, queue="seen.queue", error="order {n} has no price")
        await bury(channel, "seen", [b"\xff" * 30_000], queue="seen.gone", error="<b>bad</b>", stage="other")
        total = AT_ONCE + 3
        found = await _look(client, system, "groups", _of("seen"))
        assert (found["total"], found["seen"], found["others"]) == (total, total, 0)
        (large, small) = found["groups"]
        assert (large["kind"], large["example"], large["count"]) == (
            "order # has no price",
            "order 0 has no price",
            AT_ONCE + 2,
        )
        assert (large["first"][11:19], large["last"][11:19]) == ("10:00:00", f"10:00:{AT_ONCE + 1}")
        assert (small["kind"], small["stage"], small["reason"], small["count"]) == ("<b>bad</b>", "other", "failed", 1)
        await settled(channel, "seen.dead", total)
        group = {name: large[name] for name in ("stage", "reason", "kind")}
        page = await _look(client, system, "letters", _of("seen", **group, skip=0))
        assert (len(page["letters"]), page["more"]) == (AT_ONCE, True)
        await settled(channel, "seen.dead", total)
        page = await _look(client, system, "letters", _of("seen", **group, skip=AT_ONCE))
        assert ([base64.b64decode(each["body"]) for each in page["letters"]], page["more"]) == (bodies[AT_ONCE:], False)
        letter = page["letters"][0]
        assert (letter["id"], letter["attempts"], letter["queue"]) == (f"s-{AT_ONCE}", 5, "seen.queue")
        assert (letter["traceback"], letter["headers"]["tenant"]) == ("Traceback", "blue")
        assert letter["properties"] == {"message_id": f"s-{AT_ONCE}", "delivery_mode": 2}
        await settled(channel, "seen.dead", total)
        group = {name: small[name] for name in ("stage", "reason", "kind")}
        (cut,) = (await _look(client, system, "letters", _of("seen", **group)))["letters"]
        assert (cut["is_hidden"], cut["body"]) == (True, "")  # what is no text can't be masked
        assert (cut["shown_bytes"], cut["size"]) == (20_000, 30_000)
        await settled(channel, "seen.dead", total)
        (same,) = (await _look(client, system, "letters", _of("seen", mark=cut["mark"])))["letters"]
        assert same["mark"] == cut["mark"]
        await settled(channel, "seen.dead", total)
        plan = await _look(client, system, "dry-run", _of("seen", everything=True))
        assert (plan["count"], plan["whole"], plan["others"]) == (total, True, 0)
        assert plan["targets"] == [
            {"exchange": "", "key": "seen.queue", "count": AT_ONCE + 2, "consumers": 0},
            {"exchange": "", "key": "seen.gone", "count": 1, "missing": True},
        ]
        await settled(channel, "seen.dead", total)
        assert await count(channel, "seen.queue") == 0
        first = await channel.get("seen.dead")
        assert first is not None
        assert first.redelivered is system.is_rabbitmq
        first.nack(requeue=True)
        looks = [entry for entry in (await client.get("../audit/api/entries")).json() if "look" in entry["action"]]
        assert len(looks) == (6 if system.is_rabbitmq else 0)


async def test_one_a_group_and_all_are_replayed_and_dropped(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await channel.declare_queue("acts.queue", durable=True)
        await bury(channel, "acts", [b"0", b"1", b"2"], queue="acts.queue")
        await bury(channel, "acts", [b"3", b"4"], queue="acts.queue", error="other {n}")
        await bury(channel, "acts", [b"5"], queue="acts.gone", error="gone")
        groups = (await _look(client, system, "groups", _of("acts")))["groups"]
        first, second = ({name: each[name] for name in ("stage", "reason", "kind")} for each in groups[:2])
        await settled(channel, "acts.dead", 6)
        letters = (await _look(client, system, "letters", _of("acts", **first)))["letters"]
        await settled(channel, "acts.dead", 6)
        edited = _of("acts", mark=letters[1]["mark"], body='{"more": "é"}')
        assert (await client.post("api/replay", json=edited)).status_code == 200
        (entry, *_) = await finished(client, "replay")
        assert (entry["who"], entry["queue"], entry["result"]) == ("this machine", "acts.dead", "1 replayed")
        (delivery,) = [await channel.get("acts.queue", no_ack=True)]
        assert delivery is not None
        assert (delivery.body.decode(), delivery.properties.message_id) == ('{"more": "é"}', "s-1")
        assert delivery.properties.headers == {
            "tenant": "blue", "x-rabbitry-attempt": 1, "x-rabbitry-replayed": 1, "x-rabbitry-exchange": "",
            "x-rabbitry-routing-key": "",
        }  # fmt: skip
        await settled(channel, "acts.dead", 5)
        assert (await client.post("api/replay", json=edited)).status_code == 200
        assert (await finished(client, "replay", 2))[0]["result"] == "0 replayed"  # it is no longer there
        await settled(channel, "acts.dead", 5)
        assert (await client.post("api/replay", json=_of("acts", **first))).status_code == 200
        assert (await finished(client, "replay", 3))[0]["result"] == "2 replayed"
        assert await taken(channel, "acts.queue") == {b"0": 1, b"2": 1}
        await settled(channel, "acts.dead", 3)
        for typed in ("", "acts", "ACTS.dead"):
            answer = await client.post("api/drop", json=_of("acts", **second, confirm=typed))
            assert (answer.status_code, "is not the queue's name" in answer.json()["error"]) == (400, True)
        assert (await client.post("api/drop", json=_of("acts", **second, confirm="acts.dead"))).status_code == 200
        (entry,) = await finished(client, "drop")
        assert (entry["action"], entry["result"]) == ("drop dead letters: of stage s, failed: other #", "2 dropped")
        await settled(channel, "acts.dead", 1)
        assert (await client.post("api/replay", json=_of("acts", everything=True))).status_code == 200
        result = (await finished(client, "replay", 4))[0]["result"]
        assert result.startswith("0 replayed, 1 stayed: s-0: ")
        await settled(channel, "acts.dead", 1)


async def test_secrets_are_masked_but_in_what_is_edited(system: System) -> None:
    body = b'{"pin": "hunter2", "n": 1}'
    masking = Masking(["pin"])
    async with rabbitry.connect(system.broker) as connection, served(system, Access(masking=masking)) as client:
        channel = await connection.channel()
        await channel.declare_queue("hide.queue", durable=True)
        await bury(channel, "hide", [body, b"\xff"], queue="hide.queue", error="pin=hunter2 is wrong")
        found = await _look(client, system, "groups", _of("hide"))
        await settled(channel, "hide.dead", 2)
        group = {name: found["groups"][0][name] for name in ("stage", "reason", "kind")}
        assert group["kind"] == f"pin={MASK} is wrong"
        page = await _look(client, system, "letters", _of("hide", **group))
        assert "hunter2" not in str((found, page))
        letter = page["letters"][0]
        shown = base64.b64decode(letter["body"]).decode()
        assert (json.loads(shown), letter["is_masked"]) == ({"pin": MASK, "n": 1}, True)
        assert (letter["shown_bytes"], letter["error"]) == (len(body), f"pin={MASK} is wrong")
        await settled(channel, "hide.dead", 2)
        one = _of("hide", mark=letter["mark"])
        assert (await client.post("api/body", json=_of("hide", everything=True))).status_code == 400
        real = (await client.post("api/body", json=one)).json()["body"]
        assert base64.b64decode(real) == body
        await settled(channel, "hide.dead", 2)
        assert len(await finished(client, "open a dead letter for editing")) == 1
        # What was shown is not written back, as it is or changed.
        for number, text in enumerate((shown, shown.replace("1", "2")), 1):
            assert (await client.post("api/replay", json=one | {"body": text})).status_code == 200
            result = (await finished(client, "replay", number))[0]["result"]
            assert result.startswith("0 replayed; failed: the edited body has")
            await settled(channel, "hide.dead", 2)
        edited = body.replace(b"1", b"2").decode()
        assert (await client.post("api/replay", json=one | {"body": edited})).status_code == 200
        assert (await finished(client, "replay", 3))[0]["result"] == "1 replayed"
        assert await taken(channel, "hide.queue") == {edited.encode(): 1}
        gone = await client.post("api/body", json=one)
        assert gone.json() == {"body": None}


async def test_two_replays_at_once_publish_no_message_twice(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client, served(system) as other:
        channel = await connection.channel()
        await channel.declare_queue("two.queue", durable=True)
        bodies = [b"%d" % number for number in range(400)]
        await bury(channel, "two", bodies, queue="two.queue")
        asked = _of("two", everything=True, rate=2000)
        answers = await asyncio.gather(*(each.post("api/replay", json=asked) for each in (client, client, other)))
        assert sorted(answer.status_code for answer in answers[:2]) == [200, 400]
        refused = next(answer for answer in answers if answer.status_code == 400)
        assert "a replay of the dead letters of 'two' by this machine is running" in refused.json()["error"]
        await finished(client, "replay", 2)  # of both dashboards, which share the log
        left = await count(channel, "two.dead")
        found = await taken(channel, "two.queue")
        assert set(found.values()) == {1}
        assert len(found) + left == 400


async def test_a_replay_is_paused_and_resumed_by_another_browser_and_cancelled(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await channel.declare_queue("slow.queue", durable=True)
        await bury(channel, "slow", [b"%d" % number for number in range(300)], queue="slow.queue")
        assert (await client.post("api/replay", json=_of("slow", everything=True, rate=20))).status_code == 200

        async def has_begun() -> bool:
            return await count(channel, "slow.queue") > 2

        await eventually_awaited(has_begun, "the first are replayed")
        assert (await client.post("api/pause", json=_of("slow"))).status_code == 200

        async def is_given_back() -> bool:
            return await count(channel, "slow.queue") + await count(channel, "slow.dead") == 300

        await eventually_awaited(is_given_back, "the rest is back in the queue")
        before = await count(channel, "slow.queue")
        assert (await client.post("api/replay", json=_of("slow", everything=True))).status_code == 400
        assert (await client.post("api/resume", json=_of("slow"))).status_code == 200

        async def goes_on() -> bool:
            return await count(channel, "slow.queue") > before

        await eventually_awaited(goes_on, "it goes on")
        assert (await client.post("api/cancel", json=_of("slow"))).status_code == 200
        result = (await finished(client, "replay"))[0]["result"]
        assert result.endswith(" replayed; cancelled")
        await eventually_awaited(is_given_back, "the rest is back in the queue")
        found = await taken(channel, "slow.queue")
        assert set(found.values()) == {1}
        assert int(result.split(" ")[0]) == len(found) < 300
        steered = [(await finished(client, action))[0]["action"] for action in ("pause", "resume", "cancel")]
        assert steered == [
            "pause replay of dead letters",
            "resume replay of dead letters",
            "cancel replay of dead letters",
        ]
        answer = await client.post("api/pause", json=_of("slow"))
        assert (answer.status_code, "it has ended" in answer.json()["error"]) == (400, True)


async def test_what_fails_again_meanwhile_is_not_replayed_again(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await bury(channel, "loop", [b"%d" % number for number in range(50)], queue="loop.dead")
        assert (await client.post("api/replay", json=_of("loop", everything=True))).status_code == 200
        assert (await finished(client, "replay"))[0]["result"] == "50 replayed"
        assert await taken(channel, "loop.dead") == {b"%d" % number: 1 for number in range(50)}


async def test_changes_need_the_token_and_errors_are_texts(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await bury(channel, "safe", [b"x"], queue="safe.dead")
        token = client.headers.pop(HEADER)
        changes = {
            "replay": _of("safe", everything=True), "drop": _of("safe", everything=True, confirm="safe.dead"),
            "pause": _of("safe"), "resume": _of("safe"), "cancel": _of("safe"), "groups": _of("safe"),
            "letters": _of("safe", everything=True), "dry-run": _of("safe", everything=True),
        }  # fmt: skip
        for path, asked in changes.items():
            answer = await client.post(f"api/{path}", json=asked)
            assert (answer.status_code, "token" in answer.json()["error"]) == (403, True), path
            evil = {HEADER: token, "Origin": "http://evil.example"}
            assert (await client.post(f"api/{path}", json=asked, headers=evil)).status_code == 403
        client.headers[HEADER] = token
        wrong: dict[str, list[dict[str, Any]]] = {
            "replay": [
                _of("safe"), _of("safe", stage="s"), _of("safe", everything=True, mark="x"), _of("safe", other=1),
                _of("safe", everything=True, rate=0), _of("safe", everything=True, body="x"), _of("", everything=True),
            ],
            "groups": [_of("missing"), _of("x" * 300), {"vhost": "/"}],
            "letters": [_of("missing", everything=True), _of("safe")],
            "pause": [_of("safe")],
        }  # fmt: skip
        for path, bodies in wrong.items():
            for asked in bodies:
                answer = await client.post(f"api/{path}", json=asked)
                assert answer.status_code in (400, 503), (path, asked, answer.text)
                assert isinstance(answer.json()["error"], str)
        await settled(channel, "safe.dead", 1)
        assert (await client.get("api/groups", params={"vhost": "/"})).status_code == 400
    nowhere = System("amqp://127.0.0.1:1/", f"http://127.0.0.1:{free_port()}", is_rabbitmq=False)
    async with served(nowhere) as client:
        assert (await client.get("api/groups", params=_of("safe"))).status_code == 503
        assert (await client.post("api/replay", json=_of("safe", everything=True))).status_code == 200
        result = (await finished(client, "replay dead letters: all"))[0]["result"]
        assert result.startswith("0 replayed; failed: ")


async def test_headers_of_all_types_are_shown(system: System) -> None:
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await channel.declare_queue("odd.dead", durable=True)
        headers: dict[str, FieldValue] = {"list": [1, {"a": b"\xff"}], "none": None, "float": 0.5, "yes": True}
        await channel.publish(
            b"", routing_key="odd.dead", properties=Properties(headers=headers, timestamp=1_700_000_000)
        )
        (letter,) = (await _look(client, system, "letters", _of("odd", everything=True)))["letters"]
        assert {name: letter["headers"][name] for name in ("none", "float", "yes")} == {
            "none": None,
            "float": 0.5,
            "yes": True,
        }
        assert letter["headers"]["list"][0] == 1
        assert letter["properties"]["timestamp"] == 1_700_000_000
        assert (letter["reason"], letter["attempts"], letter["size"]) == ("", 1, 0)


async def test_one_is_looked_at_without_the_bodies_of_those_before_it(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    page = Looking._page

    async def spied(self: Looking, vhost: str, app: str, offset: int, longest: int, count: int = 100) -> dict[str, Any]:
        asked.append(longest * count)
        return await page(self, vhost, app, offset, longest, count)

    bodies = [b"%d" % number * 40_000 for number in range(3)]
    async with served(system) as client, rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await bury(channel, "large", bodies, queue="gone")
        letters = (await _look(client, system, "letters", _of("large", everything=True)))["letters"]
        await settled(channel, "large.dead", 3)
        monkeypatch.setattr(Looking, "_page", spied)
        one = await client.post("api/body", json=_of("large", mark=letters[1]["mark"]))
        assert base64.b64decode(one.json()["body"]) == bodies[1]
        assert max(asked, default=0) <= LONGEST_EDITED
        await settled(channel, "large.dead", 3)
        none = await _look(client, system, "letters", _of("large", mark="of another"))
        assert (none["letters"], none["more"]) == ([], False)
