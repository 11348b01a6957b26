"""A running crawler, processor or keeper: its short id, and its log lines on the broker."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from rabbitry.apps.crawl import names
from rabbitry.flow import App, Outgoing

RoleName: TypeAlias = Literal["crawler", "processor", "keeper"]

_LONGEST_URL: Final = 2_000
_LONGEST_TEXT: Final = 300
_FIELD_END: Final = "|"


class Node:
    """A process of a crawl, known to other programs by its kind and short id.

    id: three to six hexadecimal digits; by default random.
    """

    def __init__(self, kind: RoleName, identity: str | None = None) -> None:
        self.kind: Final = kind
        self.id: Final = identity or secrets.token_hex(3)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def line(self, url: str, text: str, at: float | None = None) -> str:
        """Return a log line, `kind|id|ISO time|url|log`, the form that all programs of a crawl read.

        Args:
            url: The address concerned, or empty.
            text: The action.
            at: A Unix timestamp; None for now.

        Characters that would end a field or the line are replaced: `|` in an address by `%7C`, in the text by `/`.
        """
        moment = _moment(int(time.time() if at is None else at))
        address = _printable(url[:_LONGEST_URL]).replace(" ", "%20").replace(_FIELD_END, "%7C")
        said = _printable(text[:_LONGEST_TEXT]).replace(_FIELD_END, "/")
        return f"{self.kind}|{self.id}|{moment}|{address}|{said}"

    def logged(
        self, url: str, text: str, *, outcome: str | None = None, wire: int = 0, index: int | None = None
    ) -> Outgoing:
        """Return a log line to publish; see `line`. If the log has no reader, the line expires.

        outcome, wire: for the live picture, see `LOG_OUTCOME`. index: see `Outgoing`.
        """
        headers: dict[str, str | int] = {}
        if outcome is not None:
            headers[names.LOG_OUTCOME] = outcome
        if wire:
            headers[names.LOG_WIRE] = wire
        return Outgoing(
            self.line(url, text),
            key=names.LOG_KEY,
            headers=headers,
            type="Line",
            expiration=names.LOG_SECONDS,
            persistent=False,
            index=index,
        )


@lru_cache(maxsize=8)
def _moment(seconds: int) -> str:
    """Return a time in ISO form, from a cache: many lines are written in one second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text)


def crawl_app(*, plain: bool = False) -> App:
    """Return the app to which a role adds its stages and outputs; it declares the log's queue.

    plain: declare exchange and queues with the original programs' flags.
    """
    app = App(
        names.APP,
        exchange=names.EXCHANGE,
        exchange_type="topic",
        plain=plain,
        auto_delete=(names.EXCHANGE, names.PAGE_QUEUE, names.LOG_QUEUE),
    )
    app.output(names.LOG_KEY, queue=names.LOG_QUEUE, required=False)
    return app
