"""The AsyncAPI documents of apps, which their workers announce in their reports."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import msgspec

from rabbitry.exceptions import UsageError
from rabbitry.flow.schemas import check_document
from rabbitry.telemetry import Report

MOST_APPS: Final = 100
"""Apps whose documents are kept; those of others are left out."""
LARGEST: Final = 1 << 20
"""Bytes of a document that is kept. Workers announce at most 256 KiB."""
MOST_BYTES: Final = 16 << 20
"""Bytes of all documents that are kept."""

_logger = logging.getLogger(__name__)


class _Announced(NamedTuple):
    """A document as JSON, and when its worker started, in Unix seconds."""

    started: float
    body: bytes


class Documents:
    """The documents that workers have announced since the dashboard began.

    While workers of two versions run, the document is that of the worker that started last.
    """

    def __init__(self) -> None:
        self._found: dict[str, _Announced] = {}

    def __contains__(self, app: object) -> bool:
        return app in self._found

    def take(self, report: Report) -> None:
        """Take a report. A document that is none, as anybody may publish it, is logged and left out."""
        app, known = report.app, self._found.get(report.app)
        if report.document is None or (known is None and len(self._found) >= MOST_APPS):
            return
        if known is not None and report.started < known.started:
            return
        body = msgspec.json.encode(report.document)
        if known is None or body != known.body:
            try:
                check_document(report.document, f"the announcement of app {app[:100]!r}")
                if len(body) > LARGEST:
                    raise UsageError(f"the document of app {app[:100]!r} has {len(body)} bytes, more than {LARGEST}")
                others = sum(len(each.body) for name, each in self._found.items() if name != app)
                if others + len(body) > MOST_BYTES:
                    raise UsageError(
                        f"no room for the document of app {app[:100]!r}: those of others have {others} bytes"
                    )
            except UsageError as error:
                _logger.info("%s", error)
                return
        self._found[app] = _Announced(report.started, body)

    def find(self, app: str) -> bytes | None:
        """Return the AsyncAPI document of an app as JSON; None if no worker has announced it."""
        known = self._found.get(app)
        return None if known is None else known.body
