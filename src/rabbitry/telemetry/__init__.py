"""Reports that every running node publishes about itself, and their collector.

It has no public modules: its names are these.
"""

from __future__ import annotations

from rabbitry.telemetry._collector import Collector, Node
from rabbitry.telemetry._histogram import Histogram
from rabbitry.telemetry._report import EXCHANGE, MOST_PASSAGES, Passage, Report, ReportKind, decode_report
from rabbitry.telemetry._reporter import Reporter

__all__ = [
    "EXCHANGE",
    "MOST_PASSAGES",
    "Collector",
    "Histogram",
    "Node",
    "Passage",
    "Report",
    "ReportKind",
    "Reporter",
    "decode_report",
]
