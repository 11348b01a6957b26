"""The roles of a course's people in the dashboard, and what each may see and do on the course's page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, get_args

from rabbitry.apps.exceptions import Forbidden
from rabbitry.apps.grading.message import user_name
from rabbitry.apps.grading.releasing import for_student
from rabbitry.apps.grading.roles import RoleName
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps import User
    from rabbitry.apps.grading.records.course import Filter, Submission

APP: Final = "grading"
STUDENT: Final = "student"
DEMONSTRATOR: Final = "demonstrator"
ASSISTANT: Final = "assistant"
COORDINATOR: Final = "coordinator"
STAFF: Final = (DEMONSTRATOR, ASSISTANT, COORDINATOR)
"""The roles whose people decide."""
EVERYBODY: Final = (STUDENT, *STAFF)
_ALL: Final[tuple[RoleName, ...]] = get_args(RoleName)


@dataclass(frozen=True, slots=True)
class Person:
    """What one person may see and do on the course's page.

    Attributes:
        role: The role in the course; None for a user of the dashboard who has none, and sees all of it.
        name: The name under which decisions are recorded; None if the person types one.
        student: The number of a student, who sees only what is their own; None for others.
        modules: The modules of a demonstrator, who sees only these; None for all.
        inboxes: The roles whose inboxes the person sees.
        submits: Whether the person may submit.
    """

    role: str | None = None
    name: str | None = None
    student: str | None = None
    modules: tuple[str, ...] | None = None
    inboxes: tuple[RoleName, ...] = _ALL
    submits: bool = True

    @property
    def who(self) -> str:
        """The name under which a decision is recorded if the person types none."""
        return self.name or user_name()

    @property
    def sees_all(self) -> bool:
        """Whether the person may see all submissions. Others learn nothing of the ids that they may not see."""
        return self.student is None and self.modules is None

    def within(self, wanted: Filter) -> Filter:
        """Return a filter that selects only what the person may see."""
        return replace(wanted, student=self.student, modules=self.modules)

    def sees(self, student: str, module: str) -> bool:
        """Return whether the person may see a submission of a student in a module."""
        return self.student in (None, student) and (self.modules is None or module in self.modules)

    def sees_submission(self, found: Submission) -> bool:
        """Return whether the person may see a recorded submission."""
        return self.sees(found.student, found.module)

    def shown(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return a submission as the person may see it: a student sees no results before they are released."""
        return found if self.student is None else for_student(found)

    def check_inbox(self, role: str) -> None:
        """Raise Forbidden if the person may not use a role's inbox."""
        if role not in self.inboxes:
            raise Forbidden(role, str(self.role))

    def check_module(self, module: str) -> None:
        """Raise Forbidden if the person may not see a module's submissions."""
        if self.modules is not None and module not in self.modules:
            raise Forbidden(f"{self.role} of the module {module!r}", str(self.role))

    def number(self, typed: str) -> str:
        """Return the number of the student for whom the person submits: a student's own.

        Args:
            typed: The number in the form; empty if it has none.

        Raises:
            UsageError: A student submits for somebody else, or the number is missing.
        """
        if self.student is None:
            if not typed:
                raise UsageError("missing student number: name the student who submits")
            return typed
        if typed not in ("", self.student):
            raise UsageError(f"you can submit only your own work, as student {self.student}")
        return self.student


def person_of(user: User) -> Person:
    """Return what a user of the dashboard may do in the course."""
    name = None if user.is_shared or not user.name else user.name
    found = user.app_role(APP)
    if found is None:
        return Person(name=name)
    if found.name == STUDENT:
        # A student without a number matches none.
        return Person(STUDENT, name, next(iter(found.scope), ""), inboxes=())
    modules = found.scope if found.name == DEMONSTRATOR else None
    inboxes = tuple(role for role in _ALL if role == found.name)
    return Person(found.name, name, None, modules, inboxes, submits=found.name == COORDINATOR)
