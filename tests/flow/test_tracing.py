"""The trace context: of the current OpenTelemetry span, else what came in, and never an invented one."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow import _spans
from tests.flow._running import eventually_dead, eventually_holds, put
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.waiting import eventually

CAME = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def span(number: int, state: TraceState | None = None) -> NonRecordingSpan:
    """Make a span of another program; only its ids are looked at."""
    return NonRecordingSpan(SpanContext(0xABC, number, False, TraceFlags(1), state))


def header_of(number: int) -> str:
    return f"00-{0xABC:032x}-{number:016x}-01"


traced = rabbitry.App("traced")
seen: list[tuple[str, object, object]] = []


def note(where: str, message: rabbitry.Message) -> None:
    current = trace.get_current_span().get_span_context()
    seen.append((where, message.headers.get("traceparent"), f"{current.trace_id:032x}" if current.is_valid else None))


@traced.stage("a", then="b")
async def first(text: str, message: rabbitry.Message) -> str:
    note("first", message)
    if text == "own":
        otel_context.attach(trace.set_span_in_context(span(7)))
    with trace.use_span(span(8)):
        return text


@traced.stage("b", then="c", concurrency=1)
def second(text: str, message: rabbitry.Message) -> list[str]:
    note("second", message)
    if text == "own":
        otel_context.attach(trace.set_span_in_context(span(9, TraceState([("vendor", "1")]))))
    return [text]


@traced.stage("c", then="d", processes=True, concurrency=1)
def third(text: str, message: rabbitry.Message) -> str:
    current = trace.get_current_span().get_span_context()
    return f"{text} {message.headers.get('traceparent')} {current.trace_id:032x}"


@traced.stage("d", attempts=2, delays=[0])
async def last(text: str, message: rabbitry.Message) -> None:
    seen.append(("third", text, None))
    note("last", message)
    raise ValueError("comes again")


@ON_EMBEDDED
@pytest.mark.parametrize("text", ["own", "carried", "none"])
async def test_results_carry_the_handlers_context_or_the_received_one(broker_url: str, text: str) -> None:
    seen.clear()
    headers = {"traceparent": CAME, "tracestate": "theirs=2"} if text == "carried" else {}
    async with traced.worker(broker_url, connect_attempts=1):
        await put(broker_url, "traced.first", text.encode(), Properties(message_id="m", headers=headers))
        await eventually_dead(broker_url, traced, 1)
    trace_ids = {"own": f"{0xABC:032x}", "carried": CAME[3:35], "none": None}
    wanted = {"own": (None, header_of(7), header_of(9)), "carried": (CAME,) * 3, "none": (None,) * 3}[text]
    now = {name: (header, current) for name, header, current in seen}
    assert now["first"] == (wanted[0], trace_ids[text] if text == "carried" else None)
    assert now["second"] == (wanted[1], trace_ids[text])
    assert now["third"][0] == f"{text} {wanted[2]} {trace_ids[text] or '0' * 32}"
    assert [entry for entry in seen if entry[0] == "last"] == [("last", wanted[2], trace_ids[text])] * 2
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        letter = await channel.get("traced.dead")
        assert letter is not None
        died = letter.properties.headers or {}
    assert died.get("traceparent") == wanted[2]
    assert died.get("tracestate") == {"own": "vendor=1", "carried": "theirs=2", "none": None}[text]


async def test_a_publisher_names_the_current_span_as_the_parent(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("request")
    app.stage("a")(_keep)
    kept.clear()
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish("none", key="a")
        with trace.use_span(span(5, TraceState([("vendor", "1")]))):
            await publisher.publish("span", key="a")
            await publisher.publish("given", key="a", headers={"traceparent": CAME, "tenant": 5})
        with trace.use_span(trace.INVALID_SPAN):
            await publisher.publish("invalid", key="a")
        await app.publish("once", key="a", headers={"tenant": 6}, url=broker_url)
        await eventually(lambda: len(kept) == 5, "all messages")
        await eventually_holds(broker_url, "request._keep", 0)
    assert {text: headers.get("traceparent") for text, headers in kept.items()} == {
        "none": None, "span": header_of(5), "given": CAME, "invalid": None, "once": None,
    }  # fmt: skip
    assert kept["span"]["tracestate"] == "vendor=1"
    assert (kept["given"]["tenant"], kept["once"]["tenant"]) == (5, 6)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"x-rabbitry-attempt": 9}, "Rabbitry's own"),
        ({"half": "\ud83d"}, "can't be encoded"),
        ({"n" * 256: 1}, "256 bytes"),
        ({"odd": object()}, "no AMQP type"),
        ({"large": "x" * 200_000}, "'large'"),
    ],
)
def test_headers_that_can_not_be_sent_are_refused(embedded_url: str, headers: dict[str, str], why: str) -> None:
    app = rabbitry.App("refused")
    app.stage("a")(_keep)
    with app.publisher_blocking(embedded_url) as publisher, pytest.raises(rabbitry.UsageError, match=why):
        publisher.publish("x", key="a", headers=headers)


kept: dict[str, dict[str, object]] = {}


async def _keep(text: str, message: rabbitry.Message) -> None:
    kept[text] = dict(message.headers)


@pytest.mark.parametrize("odd", ["", "x", "00-0-0-0", CAME.upper(), "00-" + "0" * 32 + CAME[35:], 7, [CAME], b"\xff"])
def test_an_odd_trace_context_makes_no_span_current(odd: object) -> None:
    headers: Any = {"traceparent": odd, "tracestate": 1}  # as any program may send
    message = rabbitry.Message("m", "m", 1, "s", "q", "", "k", None, None, None, None, headers)
    with trace.use_span(span(5)), _spans.handling("q", message, 1):
        assert not trace.get_current_span().get_span_context().is_valid


def test_opentelemetry_is_not_imported_for_programs_that_do_not_use_it() -> None:
    program = (
        "import sys, rabbitry\nfrom rabbitry.flow.message import first_properties\n"
        "import rabbitry.flow.worker, rabbitry.flow.publisher\nfrom rabbitry.flow import _tracing as tracing\n"
        "assert first_properties('app', 'text/plain', 'str').headers == {'x-rabbitry-attempt': 1}\n"
        "assert not tracing.is_used()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], env=commands.environment(), timeout=60, check=True)
