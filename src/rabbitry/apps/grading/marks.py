"""The marking schemes of the demonstrators' modules, as functions for a stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rabbitry.apps.grading.exceptions import SubmissionRefused
from rabbitry.apps.grading.marking import load_scheme, mark
from rabbitry.apps.grading.marking.sandbox import confinement
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.stages import BY_ITSELF, BrokenMarker, Marker, Seat
from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)


def markers_for(course: Course, seats: Sequence[Seat]) -> dict[str, Marker]:
    """Load the schemes that these seats need, and check that their sandbox works on this machine.

    A scheme that does not load stops only the demonstrator of its module: its marker is a BrokenMarker, and the
    reason is logged. If that leaves no seat to run, raises SchemeInvalid (file, line and reason) or
    SandboxUnavailable (what to install).
    """
    deciding = [seat for seat in seats if seat.role == "demonstrator" and not seat.person]
    wanted = [module for module in course.modules.values() if any(seat.module in (None, module) for seat in deciding)]
    markers = {module.name: _load(module.scheme, course) for module in wanted if module.scheme is not None}
    broken = {name: marker for name, marker in markers.items() if isinstance(marker, BrokenMarker)}
    if broken and all(seat in deciding and (seat.module is None or seat.module.name in broken) for seat in seats):
        name, marker = next(iter(broken.items()))
        raise type(marker.error)(f"the demonstrator of module {name!r} can't run: {marker.error}") from marker.error
    for seat in deciding:
        if seat.module is not None and seat.module.name in broken:
            _logger.error(
                "the demonstrator of module %r does not run: %s; its submissions wait in queue %r until the scheme is "
                "corrected and the role restarted",
                seat.module.name,
                broken[seat.module.name].error,
                seat.module.queue,
            )
    return markers


def _load(path: Path, course: Course) -> Marker:
    try:
        confinement(allow_weak=course.weak_sandbox)
        return _marker(path, allow_weak=course.weak_sandbox)
    except UsageError as error:
        return BrokenMarker(error)


def _marker(path: Path, *, allow_weak: bool) -> Marker:
    scheme = load_scheme(path)

    def marked(solution: bytes, name: str) -> Decision:
        try:
            done = mark(scheme, solution, name or "solution", allow_weak=allow_weak)
        except SubmissionRefused as error:
            # The student must learn of it; a dead letter would only reach the operator.
            return Decision(BY_ITSELF, 0.0, scheme.out_of, f"refused: {error}")
        return Decision(BY_ITSELF, done.mark, done.out_of, done.feedback)

    return marked
