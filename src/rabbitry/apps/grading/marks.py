"""The marking schemes of the demonstrators' modules, as what a stage calls."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rabbitry.apps.grading.marking import load_scheme, mark
from rabbitry.apps.grading.marking.sandbox import confinement
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.stages import BY_ITSELF, Marker, Seat
from rabbitry.exceptions import SubmissionRefused


def markers_for(course: Course, seats: Iterable[Seat]) -> dict[str, Marker]:
    """Load the schemes that the demonstrators among these seats need, and see that their sandbox works here.

    Raises SchemeInvalid (file, line, and why), SandboxUnavailable (what to install).
    """
    deciding = [seat for seat in seats if seat.role == "demonstrator" and not seat.person]
    wanted = [module for module in course.modules.values() if any(seat.module in (None, module) for seat in deciding)]
    schemes = {module.name: module.scheme for module in wanted if module.scheme is not None}
    if schemes:
        confinement(allow_weak=course.weak_sandbox)
    return {name: _marker(path, course.weak_sandbox) for name, path in schemes.items()}


def _marker(path: Path, allow_weak: bool) -> Marker:
    scheme = load_scheme(path)

    def marked(solution: bytes, name: str) -> Decision:
        try:
            done = mark(scheme, solution, name or "solution", allow_weak=allow_weak)
        except SubmissionRefused as error:
            # The student shall know; a dead letter would tell the operator alone.
            return Decision(BY_ITSELF, 0.0, scheme.out_of, f"refused: {error}")
        return Decision(BY_ITSELF, done.mark, done.out_of, done.feedback)

    return marked
