"""The history of a dashboard: what is recorded, and what is left of it after SIGKILL."""

import json
import logging
from pathlib import Path

import httpx
import pytest

import rabbitry
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.settings import Settings
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web.feed.topics import Value
from rabbitry.web.history import History
from rabbitry.web.history import _history as limits
from rabbitry.web.history._store import LEASE, Store
from rabbitry.web.history.totals import recorded, totals
from rabbitry.web.server import create_app, open_history
from tests.support import commands
from tests.support.waiting import eventually_blocking

pytestmark = pytest.mark.timeout(240)
_START = 1_800_000_000.0


class _Clock:
    def __init__(self) -> None:
        self.now = _START

    def __call__(self) -> float:
        return self.now


async def test_numbers_are_kept_by_the_second(tmp_path: Path) -> None:
    clock = _Clock()
    history = History(tmp_path / "h", "b", clock)
    history.record("monitor", "m", {"cpu": 99})  # before it runs
    async with history.running():
        history.record("monitor", "m", {"cpu": 1, "disk": None, "sent": float("nan"), "received": 1e300})
        history.record("monitor", "m", {"cpu": 2})
        clock.now += 61.5
        history.record("monitor", "m", {"cpu": 3})
        chart = await history.chart("monitor", "m", "hour")
        assert (chart.at, chart.series) == ([_START, _START + 61], {"cpu": [2, 3]})
        clock.now += 1
        history.record("monitor", "m", {"cpu": 4})
    later = History(tmp_path / "h", "b", clock)
    async with later.running():
        assert (await later.chart("monitor", "m", "hour")).series == {"cpu": [2, 3, 4]}
        assert [one.name for one in await later.series()] == ["cpu"]


async def test_numbers_wait_for_a_lease_that_was_left_behind(tmp_path: Path) -> None:
    clock = _Clock()
    Store(tmp_path / "h", "b").write({}, clock.now)  # a dashboard that was killed
    history = History(tmp_path / "h", "b", clock)
    async with history.running():
        history.record("monitor", "m", {"cpu": 1})
        await history.flush()
        history.record("monitor", "m", {"disk": 2})
        assert (await history.chart("monitor", "m", "hour")).at == []
        clock.now += LEASE + 1
        assert (await history.chart("monitor", "m", "hour")).series == {"cpu": [1], "disk": [2]}


async def test_what_waits_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "MOST_SERIES", 2)
    clock = _Clock()
    (tmp_path / "h").write_bytes(b"no database" * 100)
    history = History(tmp_path / "h", "b", clock)
    with caplog.at_level(logging.WARNING):
        async with history.running():
            for number in range(9):
                history.record("monitor", f"m{number}", {"cpu": 1})
            assert len(history._pending) == 4
            clock.now += 200
            await history.flush()
            assert history._pending == {}
            with pytest.raises(RecordsError):
                await history.series()
    assert "more than 2 series" in caplog.text
    assert "can't be used: file is not a database; move it away, and a new one is made" in caplog.text


def test_totals_of_the_broker_are_recorded_while_it_answers() -> None:
    topic = Value()
    found: list[object] = []
    with recorded(topic, found.append):
        assert topic.wanted.is_set()
        topic.put({"messages": {"ready": 5, "unacked": 1}, "rates": {"publish": 2.5, "confirm": 1}}, 1.0)
    topic.put({"messages": {"ready": 6}}, 2.0)
    assert found == [{"ready": 5, "unacked": 1, "publish": 2.5}]
    assert not topic.wanted.is_set()
    assert totals({}) == {}


async def test_the_file_lies_beside_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORDS_FOLDER, str(tmp_path))
    history = open_history("amqp://ann:secret@127.0.0.1:1/")
    app = create_app(Settings(port=0), [], history=history)
    transport = httpx.ASGITransport(app)
    async with history.running(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        history.record("monitor", "m", {"cpu": 1})
        answer = await client.get("/api/history", params={"app": "monitor", "subject": "m", "span": "week"})
        assert answer.json()["series"] == {"cpu": [1]}
        assert (await client.get("/api/history/series")).json() == [{"app": "monitor", "subject": "m", "name": "cpu"}]
        refused = await client.get("/api/history", params={"app": "monitor", "span": "year"})
        assert (refused.status_code, refused.json()) == (400, {"error": "missing, or not as the form sends it: span"})
    assert b"secret" not in (tmp_path / "history.sqlite3").read_bytes()


def test_the_history_survives_sigkill(embedded_url: str, tmp_path: Path) -> None:
    more = {"RABBITRY_BROKER": embedded_url, RECORDS_FOLDER: str(tmp_path)}
    with commands.service("web", "--port", "0", more=more) as web:
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        web.wait_for("broker connected")
        _publish(embedded_url)
        with httpx.Client(base_url=url, timeout=60) as client:
            subject = eventually_blocking(lambda: _series(client), "the sample is recorded")[0]["subject"]
            asked = {"app": "monitor", "subject": subject}
            before = client.get("/api/history", params=asked).json()
        web.process.kill()
        web.process.wait()
    with commands.service("web", "--port", "0", more=more) as web:
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        after = httpx.get(f"{url}api/history", params=asked, timeout=60).json()
    assert before["series"] == {"cpu": [50], "memory": [10], "disk": [91.5], "received": [1], "sent": [2]}
    assert (after["at"], after["series"]) == (before["at"], before["series"])


def _publish(url: str) -> None:
    sample = {
        "hostname": "h", "cpu": 0.5, "memory": {"percent": 10}, "disk": {"percent": 20},
        "filesystems": {"/home": {"percent": 91.5}}, "net": {"eth0": {"rx": 1, "tx": 2}},
    }  # fmt: skip
    with rabbitry.connect_blocking(url) as connection:
        channel = connection.channel()
        channel.publish(json.dumps(sample).encode(), exchange="system_info", routing_key="k")


def _series(client: httpx.Client) -> list[dict[str, str]]:
    return [one for one in client.get("/api/history/series").json() if one["app"] == "monitor"]
