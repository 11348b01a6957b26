"""What every running node reports of itself, and the collector of such reports."""

from warren.telemetry.collector import Collector, Node
from warren.telemetry.histogram import Histogram
from warren.telemetry.report import EXCHANGE, Kind, Passage, Report, decode_report
from warren.telemetry.reporter import Reporter

__all__ = ["EXCHANGE", "Collector", "Histogram", "Kind", "Node", "Passage", "Report", "Reporter", "decode_report"]
