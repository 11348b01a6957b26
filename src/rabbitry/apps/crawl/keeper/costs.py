"""The cost of work in a transaction, in units of a new link: about 15 µs of CPU.

A transaction has room for LIMIT units, 0.2 s on an idle machine, because commands wait for its end. The rest waits for
the next one.
"""

from __future__ import annotations

from typing import Final

from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.state import State
from rabbitry.apps.crawl.messages import Add, Document, Outcome, Report

LIMIT: Final = 12_000
KNOWN: Final = 8
"""Known links per unit, looked up by their hash."""
ADDRESS: Final = 2
"""Units for an address that is read, changed and written."""
RULES: Final = 50
"""Bytes of a robots.txt parsed per unit; a file of 500 KiB takes 170 ms."""
HEEDED: Final = 100
"""Rules matched with an address per unit."""
_MESSAGE: Final = 10
_LINKS: Final = b'"links":[['
"""The beginning of a document's links, as processors encode it."""
_LETTERS: Final = 600
"""Characters of a text that are indexed and stored per unit: 44,000 take 0.9 ms on SQLite."""
_BYTES: Final = 4_000
"""Units for a page or a robots.txt that is stored."""


def cost_of(one: Input, state: State) -> int:
    """Return the cost of a message as far as it is known in advance, without a document's links."""
    if isinstance(one, Document):
        return _MESSAGE + len(one.text) // _LETTERS
    if isinstance(one, Page):
        return _MESSAGE + len(one.body) // _BYTES
    if isinstance(one, Outcome):
        return _MESSAGE + (len(one.body) // _BYTES if one.body else 0)
    if isinstance(one, Report):
        batch = state.batches.get(one.batch)
        return _MESSAGE + (ADDRESS * len(batch.addresses) if batch is not None else 0)
    if isinstance(one, Asked) and isinstance(one.command, Add):
        return _MESSAGE + ADDRESS * len(one.command.urls)
    return _MESSAGE


def most_of(document: bytes) -> int:
    """Return about the most that an encoded document costs: all its links are new. It is not decoded.

    Each link begins with `["`, which occurs nowhere else but at the beginning of the keywords: a text's quotes are
    escaped. The links come after the text, whose length would otherwise take most of the time.
    """
    links = max(0, document.rfind(_LINKS))
    return _MESSAGE + document.count(b'["', links) + len(document) // _LETTERS
