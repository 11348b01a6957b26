"""The marking schemes of the demonstrators' modules, as functions for a stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rabbitry.apps.grading.exceptions import SchemeInvalid, SubmissionRefused
from rabbitry.apps.grading.marking import Scheme, load_scheme, mark
from rabbitry.apps.grading.marking.sandbox import confinement
from rabbitry.apps.grading.message import BY_ITSELF, Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.stages import BrokenMarker, Marker, RoleSpec
from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)


def markers_for(course: Course, specs: Sequence[RoleSpec]) -> dict[str, Marker]:
    """Load the schemes that these roles need, and check that their sandbox works on this machine.

    A scheme that does not load stops only the demonstrator of its module: its marker is a BrokenMarker, and the
    reason is logged. If that leaves no role to run, raises SchemeInvalid (file, line and reason) or
    SandboxUnavailable (what to install).
    """
    deciding = [spec for spec in specs if spec.role == "demonstrator" and not spec.person]
    wanted = [module for module in course.modules.values() if any(spec.module in (None, module) for spec in deciding)]
    markers = {module.name: _load(module.scheme, course) for module in wanted if module.scheme is not None}
    broken = {name: marker for name, marker in markers.items() if isinstance(marker, BrokenMarker)}
    if broken and all(spec in deciding and (spec.module is None or spec.module.name in broken) for spec in specs):
        name, marker = next(iter(broken.items()))
        raise type(marker.error)(f"the demonstrator of module {name!r} can't run: {marker.error}") from marker.error
    for spec in deciding:
        if spec.module is not None and spec.module.name in broken:
            _logger.error(
                "the demonstrator of module %r does not run: %s; its submissions wait in queue %r until the scheme is "
                "corrected and the role restarted",
                spec.module.name,
                broken[spec.module.name].error,
                spec.module.queue,
            )
    return markers


def _load(path: Path, course: Course) -> Marker:
    try:
        return marker_of(path, course)
    except UsageError as error:
        return BrokenMarker(error)


def marker_of(path: Path, course: Course) -> Marker:
    """Load a scheme, and check that its sandbox works on this machine.

    Raises SchemeInvalid (file, line and reason) or SandboxUnavailable (what to install).
    """
    allow_weak = course.weak_sandbox
    confinement(allow_weak=allow_weak)
    loaded = _Loaded(path)

    def marked(solution: bytes, name: str) -> Decision:
        scheme = loaded.scheme()
        try:
            done = mark(scheme, solution, name or "solution", allow_weak=allow_weak)
        except SubmissionRefused as error:
            # The student must learn of it; a dead letter would only reach the operator.
            return Decision(BY_ITSELF, 0.0, scheme.out_of, f"refused: {error}")
        return Decision(BY_ITSELF, done.mark, done.out_of, done.feedback)

    return marked


class _Loaded:
    """A scheme that is loaded again when its file has changed, so that a mended one needs no restart.

    Several threads mark at a time; if two see the change, both load it, and the result is the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = (_stamp(path), load_scheme(path))

    def scheme(self) -> Scheme:
        """Return the scheme; the one before if its file does not load any more, which is logged once."""
        stamp = _stamp(self._path)
        if stamp != self._state[0]:
            scheme = self._state[1]
            try:
                scheme = load_scheme(self._path)
                _logger.info("the marking scheme %s has changed, and was loaded again", self._path)
            except SchemeInvalid as error:
                _logger.error("the changed marking scheme is not used, but the one before it: %s", error)  # noqa: TRY400 # the text says all
            self._state = (stamp, scheme)
        return self._state[1]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
