"""A program that publishes and handles under OpenTelemetry's SDK, and prints its spans. Its argument is a URL."""

import asyncio
import contextlib
import json
import sys
import threading
from collections import Counter

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import rabbitry
from tests.support.waiting import eventually

app = rabbitry.App("spans")
CALLS = {"first": 2, "second": 2, "third": 1, "fails": 2}
batched = threading.Event()


@app.stage("in", then="next")
async def first(text: str) -> str:
    trace.get_current_span().add_event("in the handler")
    return text


@app.stage("next", then="many")
def second(text: str) -> list[str]:
    if text == "bad":
        raise rabbitry.Reject("it is bad")
    return [text, text]


@app.stage("many", batch=4, within=0.5)
async def third(texts: list[str]) -> None:
    if len(texts) > 1:
        batched.set()


@app.stage("asked", replies=True, processes=True, concurrency=1)
def asked(text: str) -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


@app.stage("fails", attempts=2, delays=[0])
async def fails(text: str) -> None:
    raise ValueError(text)


async def main(url: str) -> None:
    """Publish four messages, one of them to nowhere, and wait until all of them are settled."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    app.output("nowhere")
    async with app.worker(url, connect_attempts=1), app.publisher(url) as publisher:
        with trace.get_tracer("test").start_as_current_span("request"):
            await publisher.publish("good", key="in")
        await publisher.publish("bad", key="in")
        await publisher.publish("x", key="fails")
        with contextlib.suppress(rabbitry.PublishReturned):
            await publisher.publish("lost", key="nowhere")
        with trace.get_tracer("test").start_as_current_span("caller") as caller:
            answer = await publisher.call("?", key="asked", timeout=90)
            assert answer == f"{caller.get_span_context().trace_id:032x}", "the process is in the same trace"
        wanted = {f"process spans.{name}": count for name, count in CALLS.items()}
        wanted |= {"publish spans.dead": 2, "publish spans.fails": 1}
        wanted |= {"publish next": 2, "publish many": 2, "ack spans.third": 2, "ack spans.asked": 1}
        wanted |= {f"ack spans.{name}": 2 for name in ("first", "second", "fails")}

        def are_there() -> bool:
            names = Counter(span.name for span in exporter.get_finished_spans())
            return batched.is_set() and all(names[name] >= count for name, count in wanted.items())

        await eventually(are_there, "the spans of all calls")
    found = reader.get_metrics_data()
    print("none" if found is None else " ".join(found.to_json().split()))
    print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
