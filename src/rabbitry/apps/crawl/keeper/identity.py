"""The identity of a crawl: it shows to which database a message belongs."""

from __future__ import annotations

import re
import secrets
from typing import Final

from sqlalchemy import Connection

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.exceptions import RecordsError

_BATCH: Final = re.compile("([0-9a-f]{8})[.][0-9a-f]{12}")


def of(connection: Connection) -> str:
    """Return the random id of the crawl, which was stored when its database was created."""
    return str(sets.rows(connection, "SELECT crawl FROM crawl_keeper WHERE id = 1")[0][0])


def new_batch_id(crawl: str) -> str:
    """Return a unique id for a batch, which begins with its crawl's."""
    return f"{crawl}.{secrets.token_hex(6)}"


def check(batch: str, crawl: str) -> None:
    """Raise RecordsError if a batch belongs to another crawl. Ids from other programs are not checked."""
    found = _BATCH.fullmatch(batch)
    if found is not None and found[1] != crawl:
        raise RecordsError(
            f"the queue '{names.KEEPER_QUEUE}' holds messages of crawl {found[1]}, but this database is of crawl "
            f"{crawl}: start the keeper with the --database of that crawl, or, to abandon that crawl, purge the queues "
            f"'{names.BATCH_QUEUE}', '{names.PAGE_QUEUE}' and '{names.KEEPER_QUEUE}'"
        )
