"""What every running node reports of itself, and the collector of such reports."""

from rabbitry.telemetry.collector import Collector, Node
from rabbitry.telemetry.histogram import Histogram
from rabbitry.telemetry.report import EXCHANGE, Kind, Passage, Report, decode_report
from rabbitry.telemetry.reporter import Reporter

__all__ = ["EXCHANGE", "Collector", "Histogram", "Kind", "Node", "Passage", "Report", "Reporter", "decode_report"]
