"""The role that a submission waits for, and whether anybody consumes its queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rabbitry.amqp.client import connect
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.roles import ROLES, Role
from rabbitry.apps.grading.stages import APP
from rabbitry.exceptions import ConnectFailed, NotFound


async def missing_role(url: str, found: Mapping[str, Any], course: Course) -> str | None:
    """Return advice if no role takes a submission in its status; None if one does, or if that is unknown.

    Args:
        url: The broker.
        found: The submission's record. Consumers of the role's queue count whichever program they belong to.
        course: The course's configuration.
    """
    role = next((role for role in ROLES.values() if role.takes == found["status"]), None)
    if role is None:
        return None
    place = _queue(role, found, course)
    if place is None:
        return None
    queue, options = place
    try:
        async with connect(url, name=f"{APP} status", recover=False) as connection:
            channel = await connection.channel()
            consumers = (await channel.declare_queue(queue, passive=True)).consumer_count
    except NotFound:
        consumers = 0
    except ConnectFailed:
        return None  # the records were read from a database, so the broker need not be there
    if consumers:
        return None
    of_module = f" of module {found['module']!r}" if options and found["module"] else ""
    return (
        f"no {role.name}{of_module} runs, and the submission waits in queue {queue!r}; "
        f"start one: rabbitry grading {role.name}{options}"
    )


def _queue(role: Role, found: Mapping[str, Any], course: Course) -> tuple[str, str] | None:
    """Return its queue and the options of the role that takes it; None if unknown."""
    name = found["module"]
    if role.name != "demonstrator" or not name:
        return role.queue, ""
    module = course.modules.get(name)
    return None if module is None else (module.queue, f" --module {name}")
