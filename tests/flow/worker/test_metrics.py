"""The endpoint of a worker for Prometheus and orchestrators."""

import asyncio
import sys
import threading
from collections.abc import Iterator

import httpx
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import rabbitry
from rabbitry.flow.worker._metrics import _cumulative
from rabbitry.telemetry import Histogram
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually, eventually_awaited


async def test_prometheus_reads_what_a_worker_did(broker_url: str) -> None:
    app = rabbitry.App("measured")
    own = prometheus_client.Counter("test_own_things", "Counted by a handler")

    @app.stage("in", then="out", attempts=2, delays=[0])
    async def work(text: str) -> str:
        own.inc()
        if text == "bad":
            raise ValueError(text)
        return text

    app.output("out", required=False)
    try:
        async with app.worker(broker_url) as worker, httpx.AsyncClient(timeout=90) as client:
            url = f"http://127.0.0.1:{await worker.serve_health(0)}"
            for text in ("good", "bad", "good"):
                await app.publish(text, key="in", url=broker_url)

            async def read() -> dict[str, float]:
                answer = await client.get(f"{url}/metrics")
                assert answer.headers["content-type"] == prometheus_client.CONTENT_TYPE_LATEST
                return {
                    sample.name + sample.labels.get("outcome", "") + sample.labels.get("le", ""): sample.value
                    for family in text_string_to_metric_families(answer.text)
                    for sample in family.samples
                    if sample.labels.get("stage", "work") == "work"
                }

            async def is_done() -> bool:
                return (await read())["rabbitry_stage_dead_letters_total"] == 1

            await eventually_awaited(is_done, "the dead letter")
            found = await read()
    finally:
        prometheus_client.REGISTRY.unregister(own)
    assert found["test_own_things_total"] == 4
    assert {
        name: found[f"rabbitry_stage_{name}"]
        for name in ("done_total", "results_total", "not_done_totalfailed", "retries_total", "in_hand", "consuming")
    } == {
        "done_total": 2, "results_total": 2, "not_done_totalfailed": 2, "retries_total": 1, "in_hand": 0,
        "consuming": 1,
    }  # fmt: skip
    assert found["rabbitry_stage_handling_seconds_count"] == found["rabbitry_stage_handling_seconds_bucket+Inf"] == 4
    assert 0 < found["rabbitry_stage_handling_seconds_sum"] < found["rabbitry_stage_passing_seconds_sum"]


async def test_a_worker_whose_broker_is_away_is_alive_and_not_ready() -> None:
    app = rabbitry.App("alive")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    with BrokerProcess() as broker:
        async with app.worker(broker.url) as worker, httpx.AsyncClient(timeout=90) as client:
            url = f"http://127.0.0.1:{await worker.serve_health(0)}"
            codes = [(await client.get(f"{url}/{path}")).status_code for path in ("live", "health", "other")]
            assert codes == [200, 200, 404]
            await asyncio.get_running_loop().run_in_executor(None, broker.kill)
            await eventually(lambda: not worker.is_healthy, "the loss of the broker")
            codes = [(await client.get(f"{url}/{path}")).status_code for path in ("live", "health")]
            assert codes == [200, 503]


async def test_without_prometheus_client_the_answer_says_which_extra_brings_it(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    app = rabbitry.App("unmeasured")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async with app.worker(embedded_url) as worker, httpx.AsyncClient(timeout=90) as client:
        answer = await client.get(f"http://127.0.0.1:{await worker.serve_health(0)}/metrics")
    assert answer.status_code == 501
    assert "it comes with the extra 'prometheus'" in answer.json()["error"]


class Stuck:
    """A collector that waits, and then fails."""

    def __init__(self) -> None:
        self.is_waiting = threading.Event()
        self.release = threading.Event()

    def describe(self) -> list[prometheus_client.Metric]:
        return []

    def collect(self) -> Iterator[prometheus_client.Metric]:
        self.is_waiting.set()
        self.release.wait(90)
        raise ValueError("no figures")


async def test_a_collector_that_blocks_does_not_block_the_connections(embedded_url: str) -> None:
    app = rabbitry.App("stuck")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    stuck = Stuck()
    async with app.worker(embedded_url) as worker, httpx.AsyncClient(timeout=90) as client:
        url = f"http://127.0.0.1:{await worker.serve_health(0)}"
        prometheus_client.REGISTRY.register(stuck)
        try:
            asking = asyncio.create_task(client.get(f"{url}/metrics"))
            await eventually(stuck.is_waiting.is_set, "the collector")
            assert (await client.get(f"{url}/live")).status_code == 200
            stuck.release.set()
            answer = await asking
        finally:
            stuck.release.set()
            prometheus_client.REGISTRY.unregister(stuck)
    assert (answer.status_code, answer.json()) == (500, {"error": "a collector failed: ValueError: no figures"})


def test_buckets_are_cumulative() -> None:
    histogram = Histogram()
    for seconds in (0.000_05, 0.000_2, 0.3, 5000.0):
        histogram.observe(seconds)
    buckets, total = _cumulative(histogram)
    assert dict(buckets) | {"sum": total} == {
        **dict.fromkeys([name for name, _ in buckets], 3),
        "0.000128": 1, **{str(2.0**number / 1e6): 2 for number in range(8, 19)},
        "+Inf": 4, "sum": 5000.30025,
    }  # fmt: skip
