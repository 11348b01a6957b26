"""Reports that every running node publishes of itself, and their collector."""

from rabbitry.telemetry.collector import Collector, Node
from rabbitry.telemetry.histogram import Histogram
from rabbitry.telemetry.report import EXCHANGE, Kind, Passage, Report, decode_report
from rabbitry.telemetry.reporter import Reporter

__all__ = ["EXCHANGE", "Collector", "Histogram", "Kind", "Node", "Passage", "Report", "Reporter", "decode_report"]
