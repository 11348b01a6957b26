"""The condition that a text begins with another one, in the form for which each database searches an index."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, ColumnElement, and_, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from rabbitry.apps.grading.records.schema import text

_LAST: Final = "\U0010ffff"
_ESCAPE: Final = "/"


class begins(FunctionElement[bool]):  # noqa: N801 # it is used like a function
    """Whether a column's text begins with a text, upper and lower case being different."""

    type = Boolean()
    inherit_cache = True
    _is_implicitly_boolean = True  # SQLAlchemy would compare it with 1 on SQLite, and no index serves that

    def __init__(self, column: ColumnElement[str], beginning: str) -> None:
        first = text(beginning, 200)
        pattern = first
        for letter in (_ESCAPE, "%", "_"):
            pattern = pattern.replace(letter, _ESCAPE + letter)
        super().__init__(column, literal(first), literal(first + _LAST), literal(f"{pattern}%"))


@compiles(begins)
def _like(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    """PostgreSQL: LIKE, for which it searches an index with text_pattern_ops; a range depends on the locale."""
    column, _, _, pattern = element.clauses
    return compiler.process(column.like(pattern, escape=_ESCAPE), **options)


@compiles(begins, "sqlite")
def _range(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    """SQLite: a range, as LIKE ignores the case there, and so can't search an index."""
    column, first, end, _ = element.clauses
    return f"({compiler.process(and_(column >= first, column < end), **options)})"
