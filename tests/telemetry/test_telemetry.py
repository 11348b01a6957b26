"""Reports: histograms that add up, the words of a key, who is alive, and a worker's own over a broker."""

import asyncio

import pytest

import rabbitry
from rabbitry._decode import MAX_DEPTH
from rabbitry.exceptions import Undecodable
from rabbitry.telemetry import Collector, Histogram, Report, decode_report
from rabbitry.telemetry._report import Passage, ReportKind, encode_report
from tests.support.waiting import eventually


def test_ids_that_are_no_text_stop_no_report() -> None:
    passage = Passage("m\udcff", "done", 0.1, ["k\udcff", "fine"])
    report = Report("heartbeat", "app", "role", "id", "host", 1, 2.0, 1.0, {"done": 1}, passages=[passage])
    decoded = decode_report(encode_report(report))
    assert decoded.passages == [Passage("m?", "done", 0.1, ["k?", "fine"])]
    assert decoded.counters == {"done": 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.9e-6, 0), (1.5e-6, 1), (2.5e-6, 2), (1.0, 20), (1e5, 37), (1e6, 39), (1e9, 39)]
)
def test_a_duration_is_counted_in_the_bucket_of_its_size(seconds: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    assert histogram.trimmed() == [*[0] * bucket, 1]


def _report(kind: ReportKind = "heartbeat", id: str = "a", **more: object) -> Report:
    return Report(kind=kind, app="my.app", role="in out", id=id, host="h", pid=1, at=1.0, started=0.5, **more)  # type: ignore[arg-type] # tests' own


def test_a_report_survives_its_journey_and_its_key_has_four_words() -> None:
    report = _report(counters={"done": 3}, histograms={"handling": [0, 1]})
    assert decode_report(encode_report(report)) == report
    assert report.routing_key == "node.my_app.in_out.a"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"kind": "other"}', b"{}"])
def test_what_is_no_report_is_refused(body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_report(body)


@pytest.mark.parametrize("member", ["document", "takes"])
def test_what_is_nested_too_deeply_to_be_decoded_again_is_refused(member: str) -> None:
    whole = encode_report(_report())[:-1]

    def nested(levels: int) -> bytes:
        return whole + b', "%b": %b1%b}' % (member.encode(), b'{"a":' * levels, b"}" * levels)

    assert getattr(decode_report(nested(MAX_DEPTH)), member)
    with pytest.raises(Undecodable, match=f"'{member}' is nested deeper than {MAX_DEPTH} levels"):
        decode_report(nested(MAX_DEPTH + 1))


def test_a_node_is_gone_when_it_says_so_or_after_twenty_silent_seconds() -> None:
    now = 0.0
    collector = Collector(lambda: now)
    collector.take(_report(id="a", histograms={"handling": [0, 1]}))
    collector.take(_report(id="b", histograms={"handling": [1, 2, 3]}))
    assert [report.id for report in collector.nodes()] == ["a", "b"]
    now = 15.0
    collector.take(_report(id="a"))
    now = 21.0
    assert [report.id for report in collector.nodes()] == ["a"]
    collector.take(_report("stop", id="a"))
    assert collector.nodes() == []


async def test_a_worker_reports_what_it_did_and_where_it_went(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("reporting")

    @app.stage("in", then="out", attempts=1)
    async def handle(text: str) -> str:
        if text == "bad":
            raise ValueError(text)
        return text

    app.output("out", queue="reporting.out")
    collector, heard = Collector(), list[Report]()
    another = rabbitry.App("reporting_too")
    another.stage("in")(handle)
    async with rabbitry.connect(broker_url) as connection:
        listening = asyncio.create_task(collector.run(connection, heard.append, app="reporting"))
        try:
            async with (
                app.worker(broker_url, connect_attempts=1) as worker,
                app.publisher(broker_url) as publisher,
                another.worker(broker_url, connect_attempts=1),  # reports its end before the first one does
            ):
                await eventually(lambda: heard, "a report, so that none of what follows is missed")
                for text in ("a", "b", "bad"):
                    await publisher.publish(text, key="in")
                await eventually(
                    lambda: any(report.counters.get("received") == 3 for report in collector.nodes()), "it"
                )
                (report,) = collector.nodes()
                assert (report.app, report.role, report.id) == ("reporting", "handle", worker.id)
            await eventually(lambda: heard[-1].kind == "stop", "the last report")
            assert collector.nodes() == []
        finally:
            listening.cancel()
            await asyncio.wait((listening,))
    assert {report.app for report in heard} == {"reporting"}
    last = heard[-1]
    assert last.counters == {"received": 3, "done": 2, "failed": 1, "to.out": 2, "dead": 1}
    assert sum(last.histograms["handling"]) == sum(last.histograms["passing"]) == 3
    passages = [passage for report in heard for passage in report.passages]
    assert [(passage.outcome, passage.keys) for passage in passages if passage.outcome == "done"] == [
        ("done", ["out"]), ("done", ["out"]),
    ]  # fmt: skip
    assert len({passage.correlation_id for passage in passages}) == 3
