"""Spans of publishing and handling, as OpenTelemetry's SDK has them in a program of its own."""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from typing import Any

import opentelemetry.trace  # a worker makes spans only in a program that has imported it
import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics

import rabbitry
from rabbitry.flow import _spans
from rabbitry.flow.worker import _spanned
from tests.flow._running import eventually_holds
from tests.support import commands
from tests.support.waiting import eventually


def test_each_publish_and_each_call_of_a_handler_is_a_span(broker_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.flow._traced", broker_url],
        capture_output=True,
        text=True,
        timeout=150,
        env=commands.environment({}),
    )
    assert done.returncode == 0, done.stderr
    spans: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in json.loads(done.stdout.splitlines()[-1]):
        spans[span["name"]].append(span)
    _check_metrics(json.loads(done.stdout.splitlines()[-2]))
    by_id = {span["context"]["span_id"]: span["name"] for found in spans.values() for span in found}

    (request,) = spans["request"]
    good, bad = spans["publish in"]
    assert (_parent(by_id, good), _parent(by_id, bad)) == ("request", None)
    assert good["kind"] == "SpanKind.PRODUCER"
    assert good["attributes"]["messaging.system"] == "rabbitmq"
    assert good["attributes"]["messaging.operation.type"] == "send"
    assert good["attributes"]["messaging.destination.name"] == "spans:in"
    assert good["attributes"]["messaging.message.body.size"] == 4

    first = next(span for span in spans["process spans.first"] if span["parent_id"] == good["context"]["span_id"])
    assert first["kind"] == "SpanKind.CONSUMER"
    assert first["context"]["trace_id"] == request["context"]["trace_id"]
    assert first["attributes"]["messaging.message.id"] == good["attributes"]["messaging.message.id"]
    assert first["attributes"]["messaging.destination.name"] == "spans:in:spans.first"
    assert [event["name"] for event in first["events"]] == ["in the handler"]
    assert first["status"]["status_code"] == "UNSET"

    assert [_parent(by_id, span) for span in spans["process spans.second"]] == ["process spans.first"] * 2
    (rejected,) = [span for span in spans["process spans.second"] if span["status"]["status_code"] == "ERROR"]
    assert rejected["status"]["description"] == "it is bad"
    assert rejected["attributes"]["error.type"] == "rejected"
    _check_batches_and_failures(spans, by_id)
    _check_worker(spans, by_id)
    (call,) = spans["publish asked"]
    assert _parent(by_id, call) == "caller"
    assert call["end_time"] <= spans["caller"][0]["end_time"]
    (returned,) = spans["publish nowhere"]
    assert returned["attributes"]["error.type"] == "PublishReturned"
    assert returned["status"]["status_code"] == "ERROR"


def _parent(by_id: dict[str, str], span: dict[str, Any]) -> str | None:
    """Return the name of a span's parent. by_id: the names of all spans."""
    return by_id.get(span["parent_id"] or "")


def _check_batches_and_failures(spans: dict[str, list[dict[str, Any]]], by_id: dict[str, str]) -> None:
    batches = spans["process spans.third"]
    assert sum(span["attributes"]["messaging.batch.message_count"] for span in batches) == 2
    links = [link["context"]["span_id"] for span in batches for link in span["links"]]
    assert [by_id[link] for link in links] == ["process spans.second"] * 2
    assert {span["parent_id"] for span in batches} == {None}

    assert [span["attributes"]["rabbitry.attempt"] for span in spans["process spans.fails"]] == [1, 2]
    for span in spans["process spans.fails"]:
        assert span["attributes"]["error.type"] == "ValueError"
        assert _parent(by_id, span) == "publish fails"
    dead = spans["publish spans.dead"]
    assert {(_parent(by_id, span), span["attributes"]["rabbitry.reason"]) for span in dead} == {
        ("process spans.first", "rejected"), ("publish fails", "failed"),
    }  # fmt: skip
    (again,) = [span for span in spans["publish spans.fails"] if span["kind"] == "SpanKind.PRODUCER"]
    assert (_parent(by_id, again), again["attributes"]["rabbitry.attempt"]) == ("publish fails", 2)
    assert "rabbitry.reason" not in again["attributes"]


def _check_worker(spans: dict[str, list[dict[str, Any]]], by_id: dict[str, str]) -> None:
    """Look at what a worker does beside its handlers."""
    for key, handler in (("next", "process spans.first"), ("many", "process spans.second")):
        published = spans[f"publish {key}"]
        assert [by_id[span["parent_id"]] for span in published] == [handler] * 2
        assert {span["attributes"]["messaging.operation.type"] for span in published} == {"send"}
        assert {span["attributes"]["messaging.destination.name"] for span in published} == {f"spans:{key}"}
    for name in ("first", "second", "third", "asked"):
        handled = {span["parent_id"]: span for span in spans[f"process spans.{name}"] if span["parent_id"]}
        for kind, found in (("receive", spans[f"receive spans.{name}"]), ("settle", spans[f"ack spans.{name}"])):
            assert len(found) == (1 if name == "asked" else 2)
            for span in found:
                assert span["kind"] == "SpanKind.CLIENT"
                assert span["attributes"]["messaging.operation.type"] == kind
                assert span["attributes"]["messaging.message.id"]
                assert span["start_time"] <= span["end_time"]
                assert name in ("third", "asked") or span["parent_id"] in handled, "it is in the trace of its message"
    for result in spans["publish next"]:
        (ack,) = (
            span for span in spans["ack spans.first"]
            if span["context"]["trace_id"] == result["context"]["trace_id"]
        )  # fmt: skip
        assert result["end_time"] <= ack["end_time"], "an input is settled once its result is confirmed"


def _check_metrics(found: dict[str, Any]) -> None:
    """Compare names, units and attributes with those of the conventions' own package."""
    scopes = [scope for each in found["resource_metrics"] for scope in each["scope_metrics"]]
    (own,) = [scope["metrics"] for scope in scopes if scope["scope"]["name"] == "rabbitry"]
    points = {each["name"]: (each["unit"], each["data"]["data_points"]) for each in own}
    assert {name: unit for name, (unit, _) in points.items()} == {
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES: "{message}",
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES: "{message}",
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION: "s",
        messaging_metrics.MESSAGING_PROCESS_DURATION: "s",
    }
    named = {value for name, value in vars(messaging_attributes).items() if name.startswith("MESSAGING_")}
    assert {key for _, each in points.values() for point in each for key in point["attributes"]} <= named | {
        "error.type"
    }

    def counted(name: str, **wanted: str | None) -> int:
        keys = {"error": "error.type", "at": "messaging.destination.name", "of": "messaging.operation.name"}
        return sum(
            int(point.get("value", point.get("count")))
            for point in points[name][1]
            if all(point["attributes"].get(keys[key]) == value for key, value in wanted.items())
        )

    sent, operation = (
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION,
    )
    assert (counted(sent, error=None), counted(sent, error="PublishReturned")) == (12, 1)
    assert counted(sent) == counted(operation, of="publish") == 13
    assert (counted(sent, at="spans.dead"), counted(sent, at="spans.fails")) == (2, 1)
    assert counted(sent, at="spans") == 9, "all but the reply"
    consumed, process = (
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES,
        messaging_metrics.MESSAGING_PROCESS_DURATION,
    )
    assert counted(consumed, at="spans.third") == 2
    assert counted(consumed) == counted(operation, of="receive") == counted(operation, of="ack") == 9
    assert counted(operation, of="receive", at="spans.asked") == 1, "of a handler in a process, too"
    (settled,) = {
        point["attributes"]["messaging.operation.type"]
        for point in points[operation][1]
        if point["attributes"]["messaging.operation.name"] == "ack"
    }
    assert settled == "settle"
    assert counted(process, at="spans.second", error="rejected") == 1
    assert counted(process, at="spans.fails", error="ValueError") == 2


def test_a_span_processor_that_waits_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_spanned, "_told_slow", threading.Event())
    monkeypatch.setattr(_spanned, "_SLOW", -1.0)
    for _ in range(2):
        with _spanned._guarded():
            pass
    assert caplog.text.count("use OpenTelemetry's BatchSpanProcessor") == 1


@pytest.mark.parametrize("name", ["received", "publishing_result", "settled"])
async def test_a_failing_span_processor_keeps_no_message_from_being_settled(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    assert opentelemetry.trace.__name__ in sys.modules

    def fail(*_: object) -> None:
        raise ValueError("no room for a span")

    monkeypatch.setattr(_spans, name, fail)
    app = rabbitry.App(f"untraced-{name}")

    @app.stage("in", then="out")
    async def handle(text: str) -> str:
        return text

    app.output("out", queue=f"untraced-{name}.out")
    async with app.worker(embedded_url, connect_attempts=1) as worker:
        await worker.publish("x", key="in")
        await eventually_holds(embedded_url, f"untraced-{name}.out", 1)
        await eventually(lambda: "a span is lost" in caplog.text, "it is logged")
    await eventually_holds(embedded_url, f"untraced-{name}.handle", 0)
