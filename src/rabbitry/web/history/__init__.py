"""The history of numbers that the dashboard shows; its part of the API is in `routes`, the broker's in `totals`."""

from __future__ import annotations

from rabbitry.web.history._blocks import Chart, Series, Span
from rabbitry.web.history._history import History

__all__ = ["Chart", "History", "Series", "Span"]
