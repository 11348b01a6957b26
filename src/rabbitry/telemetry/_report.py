"""The report of a node: JSON that any program can read."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from rabbitry._decode import json_decoder
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
    """One message's passage through a stage: its outcome, its duration in seconds, and the keys of its results."""

    correlation_id: str
    outcome: str
    seconds: float
    keys: list[str]


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


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's report about itself.

    kind: start, heartbeat, stop. at, started: Unix time in seconds. counters: since the start. gauges: now.
    histograms: name → counts, see `Histogram`. passages: of messages since the last report, or a part of them.
    wiring: of a node that works on a stage of an app.
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
    wiring: Wiring | None = None

    @property
    def routing_key(self) -> str:
        """The key that it is published with: `node.APP.ROLE.ID`."""
        return f"node.{_word(self.app)}.{_word(self.role)}.{_word(self.id)}"


_encoder = msgspec.json.Encoder()
_decode = json_decoder(Report)


def encode_report(report: Report) -> bytes:
    """Encode a report as JSON. Bytes of ids and keys that are no UTF-8, as AMQP allows, become question marks."""
    try:
        return _encoder.encode(report)
    except UnicodeEncodeError:
        passages = [
            msgspec.structs.replace(
                passage, correlation_id=_utf8(passage.correlation_id), keys=[_utf8(key) for key in passage.keys]
            )
            for passage in report.passages
        ]
        return _encoder.encode(msgspec.structs.replace(report, passages=passages))


def decode_report(body: bytes) -> Report:
    """Decode a report.

    Raises:
        Undecodable: The body is not a report; the text names the field.
    """
    try:
        return _decode(body)
    except Undecodable as error:
        raise Undecodable(f"no report of a node: {error}") from error


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def _word(text: str) -> str:
    """Return text as one word of a topic, without dots, which would make several words."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)[:60] or "_"
