"""Comparing what is recorded of the kept files with their place, once at the start of a coordinator.

Files are recorded with their submissions. What differs was there before the records counted files, is another course's,
was stored by a coordinator that was killed before it recorded the submission, or was removed by hand. A place in which
no file was ever stored, although submissions have some, is another one or not mounted: nothing is concluded from it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.files import emptied
from rabbitry.runtime.tasks import until

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database

_LATER: Final = 60.0
"""Seconds until a comparison that failed goes on."""

_logger = logging.getLogger(__name__)


async def compare_kept(records: Database, files: Files, stop: asyncio.Event) -> None:
    """Compare all kept files with the records, and wait until `stop` is set. A place that is away is waited for."""
    for number in range(256):
        while not stop.is_set():
            try:
                await asyncio.to_thread(compare, records, files, f"{number:02x}")
                break
            except RecordsError as error:
                _logger.warning("the kept files are not counted: %s; trying again in %g s", error, _LATER)
            await until(stop, asyncio.sleep(_LATER))
    await stop.wait()


def compare(records: Database, files: Files, first: str) -> None:
    """Compare the files whose hashes begin so with the records. Blocks. Raises FilesError and RecordsError."""
    from rabbitry.apps.grading.records import keeping

    # The records are read first: what they have must be there, and a file that is stored in the meantime is not gone.
    known = records.read_now(partial(keeping.recorded, first=first))
    there = files.listed(first)
    if not there and records.read_now(keeping.is_expected) and files.is_unused():
        raise emptied(files.place)
    found = {sha256: packed for sha256, packed in there.items() if sha256 not in known}
    gone = known - there.keys()
    if found or gone:
        records.write_now(partial(keeping.agree, found=found, gone=gone))
        _logger.info("kept files %s: %d more, and %d fewer, than were recorded", first, len(found), len(gone))
