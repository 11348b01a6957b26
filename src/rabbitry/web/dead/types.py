"""The types of stages' messages, which workers announce in their reports, and bodies checked against them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import msgspec

from rabbitry._decode import decode_object
from rabbitry.telemetry import Report

MOST_STAGES: Final = 2000
"""Stages whose types are known at once; those of others are left out."""
LARGEST: Final = 1 << 18
"""Bytes of a type that is kept, as JSON."""
MOST_BYTES: Final = 16 << 20
"""Bytes of all types that are kept."""
MOST_PROBLEMS: Final = 10
_LONGEST_PROBLEM: Final = 300


class Types:
    """The types that workers have announced since the dashboard began."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, str], bytes] = {}
        self._bytes = 0

    def take(self, report: Report) -> None:
        """Take a report. A type for which there is no room is left out."""
        key = (report.app, report.role)
        if report.takes is None or (key not in self._schemas and len(self._schemas) >= MOST_STAGES):
            return
        schema = msgspec.json.encode(report.takes)
        total = self._bytes + len(schema) - len(self._schemas.get(key, b""))
        if len(schema) <= LARGEST and total <= MOST_BYTES:
            self._schemas[key], self._bytes = schema, total

    def find(self, app: str, stage: str) -> dict[str, Any] | None:
        """Return the JSON Schema of a stage's messages; None if no worker has announced it."""
        schema = self._schemas.get((app, stage))
        return None if schema is None else decode_object(schema)


async def problems(schema: dict[str, Any], body: str) -> list[str]:
    """Return why a body is not of a type, MOST_PROBLEMS at most; empty if it is."""
    # In a thread, since a body may have a MiB.
    return await asyncio.to_thread(_problems, schema, body)


def _problems(schema: dict[str, Any], body: str) -> list[str]:
    import jsonschema_rs  # only when a body is first edited

    if schema.get("contentMediaType") is not None:
        return []  # any bytes are of the one type, and any text, as every edited body is, of the other
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        return [f"it is no JSON: {error}"]
    try:
        # Anybody who may publish can announce a schema: patterns therefore take linear time, and nothing is fetched.
        validator = jsonschema_rs.validator_for(
            schema, retriever=_fetch_nothing, pattern_options=jsonschema_rs.RegexOptions()
        )
        found = []
        for each in validator.iter_errors(value):
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each.instance_path)
            found.append(f"${where}: {each.message}"[:_LONGEST_PROBLEM])
            if len(found) == MOST_PROBLEMS:
                break
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return [f"the type that the worker announced can't be used: {str(error).splitlines()[0]}"[:_LONGEST_PROBLEM]]
    return found


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri[:100]}: no schema is fetched")
