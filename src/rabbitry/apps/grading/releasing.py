"""Results that are held back until a date: what a student sees of a submission before it, and their release."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.message import DECLINED
from rabbitry.runtime.tasks import until

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database

LOOK: Final = 1.0
"""Seconds between two looks for results that are released by now."""
_FULL: Final = 0.2
"""Seconds until the next look if the outbox is full of such results."""
_NOTHING: Final = {"mark": None, "out_of": None, "feedback": None}
_NO_HOP: Final = {**_NOTHING, "comments": (), "marks": ()}

_logger = logging.getLogger(__name__)


def for_student(found: dict[str, Any]) -> dict[str, Any]:
    """Return a submission as its student may see it: while its results are held, without all that tells of them.

    Its status, its times and the remarks on one that was declined stay.

    Args:
        found: The submission as JSON data, perhaps with its history.
    """
    if found.get("held_until") is None:  # an older coordinator answers without, and holds nothing
        return found
    # Of several attempts, the one that counts may be the best.
    shown = found | _NOTHING | {"final_mark": None, "penalty": 0.0, "counts": False}
    if "history" in found:
        shown["history"] = [_hop(hop) for hop in found["history"]]
    if "requests" in found:  # of an earlier release
        shown["requests"] = [one | {"mark": None, "out_of": None, "remark": None} for one in found["requests"]]
    return shown


def _hop(hop: dict[str, Any]) -> dict[str, Any]:
    is_told = hop["role"] == "student" or hop["status"] == DECLINED
    return hop | _NO_HOP | {"remark": hop["remark"] if is_told else None}


async def publish_released(database: Database, stop: asyncio.Event) -> None:
    """Have results that are held published once they are released, until `stop` is set."""
    from rabbitry.apps.grading.records import releases

    while not stop.is_set():
        pause = LOOK
        try:
            if await database.read(releases.are_due):
                pause = 0.0 if await database.write(releases.let_go) else _FULL
        except RecordsError as error:
            pause = 5 * LOOK
            _logger.warning("released results are not published: %s; trying again in %g s", error, pause)
        if pause:
            await until(stop, asyncio.sleep(pause))
