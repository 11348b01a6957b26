"""Reports that every running node publishes about itself, and their collector.

It has no public modules: its names are these.
"""

from __future__ import annotations

from rabbitry.telemetry._collector import Collector, Node, collect
from rabbitry.telemetry._histogram import Histogram, quantile
from rabbitry.telemetry._masking import MASK, Masking
from rabbitry.telemetry._report import (
    EXCHANGE,
    MOST_PASSAGES,
    SILENCE,
    DeclaredBinding,
    DeclaredExchange,
    DeclaredQueue,
    Declares,
    Limits,
    Passage,
    Report,
    ReportKind,
    ScheduleState,
    Wiring,
    decode_report,
)
from rabbitry.telemetry._reporter import Reporter

__all__ = [
    "EXCHANGE",
    "MASK",
    "MOST_PASSAGES",
    "SILENCE",
    "Collector",
    "DeclaredBinding",
    "DeclaredExchange",
    "DeclaredQueue",
    "Declares",
    "Histogram",
    "Limits",
    "Masking",
    "Node",
    "Passage",
    "Report",
    "ReportKind",
    "Reporter",
    "ScheduleState",
    "Wiring",
    "collect",
    "decode_report",
    "quantile",
]
