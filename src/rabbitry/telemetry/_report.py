"""The report of a node: JSON that any program can read."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from rabbitry._decode import MAX_DEPTH, is_deeper_than, json_decoder
from rabbitry.exceptions import Undecodable

ReportKind: TypeAlias = Literal["start", "heartbeat", "stop"]

EXCHANGE: Final = "rabbitry.telemetry"
INTERVAL: Final = 2.0
"""Seconds between a node's heartbeats."""
SILENCE: Final = 20.0
"""Seconds without a report after which a node counts as gone."""
MOST_PASSAGES: Final = 100
"""Passages that one report carries at most; the counters count all."""


class Passage(msgspec.Struct, array_like=True, frozen=True):
    """One message's passage through a stage.

    Readers that know fewer members ignore the others; what an older node does not report has the default.

    correlation_id: of its chain. outcome: see `rabbitry.flow`: done, failed, rejected, retry, suspect … seconds: in the
    handler. keys, ids: routing keys and message ids of the first messages that it led to; an id is empty if it is not
    known. led: how many these are. message_id: its own. began: the Unix time at which the handler began. waited:
    seconds in the worker outside the handler. attempt: 1 at first. error, trace: cut, with secrets masked by the
    names before them (`Masking`). published: the Unix time in its properties, in whole seconds, or 0. end: `dead` if a
    dead letter was made of it, `again` if it is to come again, or empty.
    """

    correlation_id: str
    outcome: str
    seconds: float
    keys: list[str]
    message_id: str = ""
    began: float = 0.0
    waited: float = 0.0
    attempt: int = 1
    ids: list[str] = []
    error: str = ""
    trace: str = ""
    published: float = 0.0
    end: str = ""
    led: int = 0


class Wiring(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the messages of a stage come from, and where its results go.

    exchange: the one that messages with `key` are published to. queue: the stage's. to: the app's exchange, which
    results go to. other: key → exchange, for results that go to another one.
    """

    exchange: str
    key: str
    queue: str
    to: str
    other: dict[str, str] = {}


class DeclaredExchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exchange that an app declares."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False


class DeclaredQueue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue that an app declares."""

    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, str | int | float | bool] = {}


class DeclaredBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A binding of a queue that an app declares."""

    exchange: str
    queue: str
    key: str = ""


class Declares(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that an app declares on the broker."""

    exchanges: list[DeclaredExchange] = []
    queues: list[DeclaredQueue] = []
    bindings: list[DeclaredBinding] = []


class ScheduleState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage's schedule.

    when, missed: as the app has them. next: the Unix time of the next tick. fired: the last ticks: the Unix time of
    each, the one at which it was published, and the machine that published it.
    """

    when: str
    missed: str
    next: float
    fired: list[tuple[float, float, str]] = []


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a stage over all workers.

    rate: as the app has it, such as `10/s`; empty if there is none. tokens: the queue of the rate's tokens. slots: how
    many calls of the handler may run at once; 0 if that is not limited. by: the name of the function that returns the
    key of a message, `key` if it has none; empty if there is no limit by key. rate_each, slots_each: the limits of each
    key, as the first ones.
    """

    rate: str = ""
    tokens: str = ""
    slots: int = 0
    by: str = ""
    rate_each: str = ""
    slots_each: int = 0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's report about itself.

    kind: start, heartbeat, stop. at, started: Unix time in seconds. counters: since the start. gauges: now.
    histograms: name → counts, see `Histogram`. passages: of messages since the last report, or a part of them.
    share: the share of the chains of messages whose passages are reported, chosen by their correlation id; a smaller
    share is a part of a larger one. missed: passages of that share which did not fit into reports. wiring: of a node
    that works on a stage of an app. declares, document: what its app declares, and its AsyncAPI document; in the first
    report of a worker, and in one of the later ones each half minute. takes: the JSON Schema of the stage's messages,
    in the first report and one each 10 s, with `contentMediaType` if they are not JSON. schedule: of the stage, from
    the one worker that publishes its ticks. limits: of the stage, if it has any; the gauges `waiting_tokens` and
    `waiting_slots` are messages that wait in this worker for the one or the other, `waiting_keys` those that wait for
    their key, and `slots` those that hold a slot. `busy`, of a stage with limits by key: the share of the calls that
    this worker may run at once that did run, on average over the last seconds.
    """

    kind: ReportKind
    app: str
    role: str
    id: str
    host: str
    pid: int
    at: float
    started: float
    counters: dict[str, int] = {}
    gauges: dict[str, float] = {}
    histograms: dict[str, list[int]] = {}
    passages: list[Passage] = []
    share: float = 1.0
    missed: int = 0
    wiring: Wiring | None = None
    declares: Declares | None = None
    document: dict[str, Any] | None = None
    takes: dict[str, Any] | None = None
    schedule: ScheduleState | None = None
    limits: Limits | None = None

    @property
    def routing_key(self) -> str:
        """The key that it is published with: `node.APP.ROLE.ID`."""
        return f"node.{_word(self.app)}.{_word(self.role)}.{_word(self.id)}"


def keys_of(app: str | None) -> str:
    """Return the binding key of the reports of an app, or of all: reports of similar names may be among them."""
    return "node.#" if app is None else f"node.{_word(app)}.#"


_encoder = msgspec.json.Encoder()
_decode = json_decoder(Report)


def encode_report(report: Report) -> bytes:
    """Encode a report as JSON. Bytes of ids and keys that are no UTF-8, as AMQP allows, become question marks."""
    try:
        return _encoder.encode(report)
    except UnicodeEncodeError:
        passages = [
            msgspec.structs.replace(
                passage,
                **{name: _utf8(getattr(passage, name)) for name in ("correlation_id", "message_id", "error", "trace")},
                keys=[_utf8(key) for key in passage.keys],
                ids=[_utf8(identity) for identity in passage.ids],
            )
            for passage in report.passages
        ]
        return _encoder.encode(msgspec.structs.replace(report, passages=passages, declares=None, document=None))


def decode_report(body: bytes) -> Report:
    """Decode a report.

    Raises:
        Undecodable: The body is not a report; the text names the field.
    """
    try:
        report = _decode(body)
    except Undecodable as error:
        raise Undecodable(f"no report of a node: {error}") from error
    # Readers walk and decode them again, on a stack that may be deeper than this one.
    for name in ("document", "takes"):
        if is_deeper_than(getattr(report, name), MAX_DEPTH):
            raise Undecodable(f"no report of a node: {name!r} is nested deeper than {MAX_DEPTH} levels")
    return report


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def _word(text: str) -> str:
    """Return text as one word of a topic, without dots, which would make several words."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)[:60] or "_"
