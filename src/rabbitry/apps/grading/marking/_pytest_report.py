"""Reads the signed report of a pytest run; a test without a report did not pass."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec
from msgspec import Struct

from rabbitry._decode import json_decoder
from rabbitry.exceptions import Undecodable


class TestReport(Struct):
    """The result of a run of pytest."""

    __test__ = False  # pytest must not collect it for its name

    began: bool = False
    """Whether pytest itself started; no code of the submission has run by then."""
    ended: bool = False
    broken: str | None = None
    """Why the tests could not be collected."""
    tests: dict[str, str | None] = msgspec.field(default_factory=dict)
    """Each test (its number and name) with the reason it failed, or None if it passed."""

    @property
    def passed(self) -> int:
        """The number of tests that passed."""
        return sum(why is None for why in self.tests.values())


class _Event(Struct):
    number: int
    event: Literal["began", "broken", "found", "done", "ended"]
    test: str = ""
    passed: bool = False
    why: str = ""


_decode_event = json_decoder(_Event)


def read_report(report: bytes, key: bytes) -> TestReport:
    """Read the lines that are signed with `key` and numbered in order; all others are ignored."""
    found = TestReport()
    number = 0
    for line in report.split(b"\n"):
        signature, _, text = line.partition(b" ")
        if not hmac.compare_digest(signature, hmac.new(key, text, hashlib.sha256).hexdigest().encode()):
            continue
        try:
            event = _decode_event(text)
        except Undecodable:  # not the reporter's line: the submission has found the key
            continue
        if event.number != number + 1:
            continue
        number += 1
        _take(event, found)
    return found


def _take(event: _Event, found: TestReport) -> None:
    if event.event == "began":
        found.began = True
    elif event.event == "ended":
        found.ended = True
    elif event.event == "broken":
        found.broken = event.why
    elif event.event == "found":
        found.tests[event.test] = "did not finish"
    elif event.test in found.tests:
        found.tests[event.test] = None if event.passed else (event.why or "failed")
