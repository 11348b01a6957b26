"""Splitting: the results of a stage as the numbered parts of a job, and what the stage tells the join."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.tables import encode_text
from rabbitry.exceptions import UsageError
from rabbitry.flow._parts import NOTICE, Join, Part, part_of
from rabbitry.flow.codec import BYTES
from rabbitry.flow.message import PART, Publication, Role, first_properties, properties_of
from rabbitry.flow.wiring.delays import delayed

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery
    from rabbitry.flow._trail import Trail
    from rabbitry.flow.worker._job import Job

MOST_PARTS: Final = 10_000


def outer(trail: Trail) -> Trail:
    """Return the trail of what follows from a whole job: it is a part of the outer job, if there is one."""
    return trail._replace(part=trail.part.rpartition("\n")[0])


def cause_of(job: Job, *, is_join: bool) -> str | None:
    """Return the id from which the ids of a message's results are derived: its own, or in a join the job's."""
    if is_join:
        part = part_of(job.trail.part)
        return None if part is None else part.job
    return properties_of(job.delivery).message_id


def result_id(cause: str, queue: str, number: int) -> bytes:
    """Return the id of a result, which is the same each time that its message is handled.

    If a worker dies before it can acknowledge, the results are published again. One of them that is split is then the
    same job.
    """
    return hashlib.blake2b(encode_text(f"{cause}\n{queue}\n{number}"), digest_size=16).hexdigest().encode()


def parts(trail: Trail, delivery: Delivery, count: int, caller: str) -> list[Trail]:
    """Return the trail of each of the parts that a message is split into.

    The numbers follow from the message alone, so that a message that is split again has the same parts. caller: where
    the reply of the join goes; empty for nowhere. Raises UsageError for a message that can't be split.
    """
    before = f"{trail.part}\n" if trail.part else ""
    job = _job(delivery, count)
    return [trail._replace(part=f"{before}{Part(job, number, count, caller)}") for number in range(count)]


def notice(app: str, trail: Trail, delivery: Delivery, count: int, join: Join, caller: str) -> Publication:
    """Return the message that tells a join that a job's time is over, delivered then; at once if it has no parts.

    See `parts` for the arguments.
    """
    before = f"{trail.part}\n" if trail.part else ""
    header = f"{before}{Part(_job(delivery, count), NOTICE, count, caller)}"
    properties = first_properties(app, BYTES, "")
    properties = properties._replace(
        headers={**(properties.headers or {}), PART: header},
        correlation_id=properties_of(delivery).correlation_id or properties.correlation_id,
    )
    message = Publication("", join.queue, b"", properties, role=Role.NOTICE)
    return delayed([join.queue], message, join.within)._replace(role=Role.NOTICE) if count else message


def _job(delivery: Delivery, count: int) -> str:
    job = properties_of(delivery).message_id
    if not job or "\n" in job:
        raise UsageError(
            f"a message with the id {job!r} can't be split: its parts need an id of one line to be known by"
        )
    if count > MOST_PARTS:
        raise UsageError(f"message {job} can't be split in {count} parts: {MOST_PARTS} at most can be joined")
    return job
