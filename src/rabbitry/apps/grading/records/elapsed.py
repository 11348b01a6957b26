"""The seconds between two recorded times, as each database computes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class seconds_between(FunctionElement[float]):  # noqa: N801 # it is used like a function
    """The seconds from a recorded time to another one, to the millisecond; negative if that is earlier."""

    type = Float()
    inherit_cache = True

    def __init__(self, earlier: ColumnElement[str], later: ColumnElement[str]) -> None:
        super().__init__(earlier, later)


@compiles(seconds_between)
def _interval(element: seconds_between, compiler: SQLCompiler, **options: Any) -> str:
    """PostgreSQL: the difference of two times, which has microseconds."""
    earlier, later = (f"CAST({compiler.process(one, **options)} AS timestamptz)" for one in element.clauses)
    return f"CAST(round(CAST(extract(epoch FROM {later} - {earlier}) AS numeric), 3) AS float)"


@compiles(seconds_between, "sqlite")
def _days(element: seconds_between, compiler: SQLCompiler, **options: Any) -> str:
    """SQLite: the difference of two Julian days, of whole milliseconds, as a float."""
    earlier, later = (f"julianday({compiler.process(one, **options)})" for one in element.clauses)
    return f"round(({later} - {earlier}) * 86400.0, 3)"
