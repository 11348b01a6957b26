"""Reports that every running node publishes of itself, and their collector."""

from __future__ import annotations

from rabbitry.telemetry.collector import Collector, Node
from rabbitry.telemetry.histogram import Histogram
from rabbitry.telemetry.report import EXCHANGE, Passage, Report, ReportKind, decode_report
from rabbitry.telemetry.reporter import Reporter

__all__ = ["EXCHANGE", "Collector", "Histogram", "Node", "Passage", "Report", "ReportKind", "Reporter", "decode_report"]
