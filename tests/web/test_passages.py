"""What is kept of reported passages: found by any id of a chain, for an hour, within bounds, whatever reports hold."""

import asyncio

import pytest

from rabbitry.telemetry import Passage, Report
from rabbitry.web import passages
from rabbitry.web.passages import KEPT, MOST_FOUND, MOST_WAITING, Passages


def _report(*reported: Passage) -> Report:
    return Report("heartbeat", "shop", "pack", "n1", "h", 1, 2.0, 1.0, passages=list(reported))


def _passage(chain: str, message: str, *, outcome: str = "done", ids: tuple[str, ...] = (), end: str = "") -> Passage:
    return Passage(chain, outcome, 0.5, ["k"] * len(ids), message_id=message, began=100.0, ids=list(ids), end=end)


async def test_a_chain_is_found_by_each_of_its_ids_and_kept_for_an_hour() -> None:
    now = 1000.0
    kept = Passages(lambda: now)
    kept.take(
        _report(_passage("Root", "Root", ids=("child",)), _passage("other", "other", outcome="failed", end="dead"))
    )
    kept.take(_report(_passage("Root", "child", ids=("left",))))
    await kept.write()
    for identity in ("Root", "root", "child", "left"):
        chain, found = await kept.chain(identity)
        assert chain == "Root"
        assert [(one["message"], one["ids"]) for one in found] == [("Root", ["child"]), ("child", ["left"])]
    assert await kept.beginning("chi") == ["child"]
    assert await kept.beginning("%") == []
    assert [one["chain"] for one in await kept.recent(failed=True)] == ["other"]
    assert [one["message"] for one in await kept.recent(failed=False)] == ["child"]
    now += KEPT + 1
    await kept.write()
    assert await kept.chain("left") == ("left", [])
    await kept.close()


async def test_the_number_of_passages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "MOST_KEPT", 100)
    kept = Passages()
    flood = _report(*(_passage(f"c{number}", f"c{number}", ids=(f"l{number}",)) for number in range(1000)))
    for _ in range(MOST_WAITING // 1000 + 1):
        kept.take(flood)
    assert kept.left_out == 1000
    await kept.write()
    assert (await kept.chain("c0"))[1] == []
    assert (await kept.chain("l0"))[1] == []
    assert len((await kept.chain("c999"))[1]) == 1
    assert len(await kept.beginning("c9")) == MOST_FOUND
    await kept.close()


async def test_a_report_may_hold_anything() -> None:
    kept = Passages()
    wild = Passage(
        "\0'\"%", "x" * 10**5, 1e300, ["k" * 1000] * 1000, "m", -1e300, -1.0, 10**40, ["i"] * 1000, "e" * 10**6
    )
    kept.take(_report(wild, wild))
    await asyncio.gather(kept.write(), kept.write())
    _, found = await kept.chain("m")
    assert len(found) == 2
    assert len(str(found)) < 100_000
    await kept.close()
