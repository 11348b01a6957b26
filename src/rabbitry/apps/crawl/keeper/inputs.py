"""The keeper's decoded input: pages, outcomes, reports, documents, and commands."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from rabbitry.apps.crawl.messages import Command, Document, Outcome, Purpose, Report


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page as sent to the processors. body: zstd. size: its uncompressed bytes; wire: bytes over the network."""

    url: str
    fetched_at: float
    body: bytes
    final_url: str = ""
    status: int = 200
    crawler: str = ""
    batch: str = ""
    purpose: Purpose = "page"
    content_type: str = ""
    headers: dict[str, str] = {}
    size: int = 0
    wire: int = 0


class Asked(msgspec.Struct, frozen=True):
    """A command. message: its message's id, by which a repeated command is recognized."""

    command: Command
    message: str


Input: TypeAlias = Page | Outcome | Report | Document | Asked
