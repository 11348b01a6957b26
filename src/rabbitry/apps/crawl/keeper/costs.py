"""The work in a transaction, in units of what a new link takes: about 15 µs of CPU.

A transaction has room for LIMIT of them, 0.2 s on a machine with nothing else to do, because commands wait for its end.
The rest has its turn in the next one.
"""

from __future__ import annotations

from typing import Final

from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.state import State
from rabbitry.apps.crawl.messages import Add, Document, Outcome, Report

LIMIT: Final = 12_000
KNOWN: Final = 8
"""Links that are known by their hash, for one unit."""
ADDRESS: Final = 2
"""Of an address that is read, changed and written."""
RULES: Final = 50
"""Bytes of a robots.txt that are parsed, for one unit; a file of 500 KiB takes 170 ms."""
HEEDED: Final = 100
"""Rules that an address is looked for in, for one unit."""
_MESSAGE: Final = 10
_LETTERS: Final = 250
_BYTES: Final = 4_000
"""Of a page or a robots.txt that is kept, for one unit."""


def cost_of(one: Input, state: State) -> int:
    """Return the work of a message, as far as it is known before: the links of a document are not."""
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
