"""The roles as stages of a `rabbitry.App`: how each handles an assignment, automatically or for a person."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from uuid import uuid4

from rabbitry._words import counted
from rabbitry.apps.exceptions import RecordsAway
from rabbitry.apps.grading.answering import KEY as ANSWERS_KEY
from rabbitry.apps.grading.answering import QUEUE as ANSWERS_QUEUE
from rabbitry.apps.grading.answering import Answer
from rabbitry.apps.grading.answering import Reply as AnswerReply
from rabbitry.apps.grading.answering import record as record_answer
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.floods import Floods, Refusal
from rabbitry.apps.grading.message import ANSWER, BY_ITSELF, DECLINED, SOLUTION, Assignment, Decision, Progress
from rabbitry.apps.grading.modules import Course, Module
from rabbitry.apps.grading.receiving import is_sealed, receive
from rabbitry.apps.grading.requesting import KEY as REQUESTS_KEY
from rabbitry.apps.grading.requesting import QUEUE as REQUESTS_QUEUE
from rabbitry.apps.grading.requesting import Asked, Reply
from rabbitry.apps.grading.requesting import record as record_request
from rabbitry.apps.grading.roles import (
    CORRECTION_KEY,
    CORRECTION_QUEUE,
    EXCHANGE,
    PROGRESS_EXCHANGE,
    PROGRESS_KEY,
    PROGRESS_QUEUE,
    RESULTS,
    ROLES,
    Role,
    RoleName,
    decide,
    key_of,
)
from rabbitry.apps.grading.signatures import Finding, Signer, findings_of
from rabbitry.apps.grading.turns import IN_HAND, PUT_OFF, Turns
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.flow import App, Batch, Message, Outgoing
from rabbitry.flow.exceptions import Reject

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rabbitry.apps.grading.files import Files, Kept
    from rabbitry.apps.grading.records import Database

APP: Final = "grading"
STATUS_QUEUE: Final = f"{APP}.status"
"""The queue of questions about submissions, which coordinators answer from the records."""

_TOGETHER: Final = 50
"""Assignments, and reports, that are handled together, of those that come within the 50 ms that a batch waits.

They are published, confirmed, recorded and acknowledged together: that wakes threads and the broker once (`make bench
ARGS=grading`).
"""
_MOST_STORED: Final = 10_000
"""Submissions whose files are known to be stored; the ones that came first are forgotten."""
_DECLINED_AT: Final = 2
"""The step of a report that a submission was declined: the role that did it was the first."""

_logger = logging.getLogger(__name__)

Marker: TypeAlias = Callable[[bytes, str], Decision]
"""Marks a solution (a file and its name). It blocks, and raises Reject for errors that a retry would not solve."""
Products: TypeAlias = "list[Assignment | Progress]"
Handler: TypeAlias = "Callable[[dict[str, Any], Message], Awaitable[Products]]"


@dataclass(frozen=True, slots=True)
class BrokenMarker:
    """Takes the place of a scheme that does not load. The role of its module does not run here."""

    error: UsageError

    def __call__(self, solution: bytes, name: str) -> Decision:
        """Raise Reject with the reason."""
        raise Reject(f"not marked: {self.error}") from self.error


@dataclass(frozen=True, slots=True)
class Wiring:
    """The settings that the programs of a course share: its modules, and the exchange.

    exchange_type: `fanout` is the broadcast form: every role gets every message, takes those in its status and
    ignores the others. plain: declare with the flags of the original programs.
    """

    course: Course = field(default_factory=Course)
    exchange: str = EXCHANGE
    exchange_type: Literal["direct", "fanout"] = "direct"
    plain: bool = False


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A role that this process runs. module: a demonstrator's; None for all. person: whether a person decides."""

    role: RoleName
    module: Module | None = None
    person: bool = False

    @property
    def name(self) -> str:
        """The name of its stage."""
        return self.role if self.module is None else f"{self.role}_{self.module.short}"


@dataclass(slots=True)
class RoleSet:
    """The roles that this process runs, and what they need.

    markers: module → function that marks its solutions; the demonstrator of a module whose marker is broken does not
    run, and its submissions wait. left_alone: how many messages of others each stage saw. found_type: returns the
    exchange's type on the broker, where another program may have declared it first. files: where a coordinator keeps
    the files. turns: shares the markings at the same time among the students. signer: signs what the roles publish.
    declined: how many submissions each stage did not take. floods: the students' submissions within an hour.
    """

    wiring: Wiring
    specs: Sequence[RoleSpec]
    database: Database | None = None
    markers: Mapping[str, Marker] = field(default_factory=dict)
    left_alone: Counter[str] = field(default_factory=Counter)
    found_type: Callable[[], str] | None = None
    files: Files | None = None
    signer: Signer | None = None
    turns: Turns = field(default_factory=lambda: Turns(os.cpu_count() or 1))
    declined: Counter[str] = field(default_factory=Counter)
    floods: Floods = field(init=False)
    _stored: OrderedDict[str, Kept] = field(default_factory=OrderedDict, init=False)
    """The files of submissions, by id, that were stored with a report: a confirmation need not store them again."""

    def __post_init__(self) -> None:
        """Begin to count the submissions of each student."""
        self.floods = Floods(self.wiring.course.per_hour)

    @property
    def is_broadcast(self) -> bool:
        """Whether every role gets every message, because the exchange is a fanout exchange."""
        return (self.found_type() if self.found_type else self.wiring.exchange_type) == "fanout"

    def app(self) -> App:
        """Return the app with a stage for each role, and outputs for what they publish."""
        wiring = self.wiring
        app = App(APP, exchange=wiring.exchange, exchange_type=wiring.exchange_type, plain=wiring.plain)
        for spec in self.specs:
            if not self._is_stopped(spec):
                self._add_stage(app, spec)
        if self._keeps_records:
            aside = partial(app.stage, exchange=PROGRESS_EXCHANGE)
            aside(PROGRESS_KEY, queue=PROGRESS_QUEUE, name="records", batch=_TOGETHER)(self._record)
            aside(REQUESTS_KEY, queue=REQUESTS_QUEUE, name="requests", replies=True)(self._ask)
            aside(ANSWERS_KEY, queue=ANSWERS_QUEUE, name="answers", replies=True)(self._answer)
        self._add_outputs(app)
        return app

    def _is_stopped(self, spec: RoleSpec) -> bool:
        if spec.role != "demonstrator" or spec.person or spec.module is None:
            return False
        return isinstance(self.markers.get(spec.module.name), BrokenMarker)

    @property
    def _keeps_records(self) -> bool:
        return any(spec.role == "coordinator" for spec in self.specs)

    def _add_stage(self, app: App, spec: RoleSpec) -> None:
        role = ROLES[spec.role]
        stage = partial(
            app.stage,
            role.key if spec.module is None else spec.module.key,
            queue=role.queue if spec.module is None else spec.module.queue,
            name=spec.name,
            then=self._key,
        )
        if spec.role == "demonstrator" and not spec.person and self._markers(spec):
            stage(concurrency=IN_HAND, uncounted=PUT_OFF)(self._handler(spec, role, self._mark))
        else:
            work = self._confirm if role.name == "coordinator" else self._pass_on
            handler = self._handler(spec, role, self._to_inbox if spec.person else work)
            stage(batch=_TOGETHER)(_of_batches(handler))

    def _markers(self, spec: RoleSpec) -> list[Marker]:
        names = self.markers if spec.module is None else {spec.module.name} & set(self.markers)
        return [self.markers[name] for name in names]

    def _key(self, product: Assignment | Progress) -> str:
        return PROGRESS_KEY if isinstance(product, Progress) else key_of(product, self.wiring.course)

    def _add_outputs(self, app: App) -> None:
        """Add the outputs and declare their queues, so that messages wait for a consumer that has never run."""
        taken = {stage.key for stage in app.stages.values()}
        queues: dict[str, str | None] = {}
        is_fanout = self.wiring.exchange_type == "fanout"
        for spec in self.specs:
            role = ROLES[spec.role]
            if role.then != RESULTS:
                queues[role.then] = next(other.queue for other in ROLES.values() if other.key == role.then)
            if spec.role == "assistant":  # for submissions sent back
                for module in self.wiring.course.modules.values():
                    queues[module.key] = None if is_fanout else module.queue
                queues[CORRECTION_KEY] = None if is_fanout else CORRECTION_QUEUE
        for spec in self.specs:
            if self._is_stopped(spec) and spec.module is not None:
                queues[spec.module.key] = spec.module.queue  # the queue of its submissions
        for key, queue in queues.items():
            if key not in taken:
                app.output(key, queue=queue)
        if RESULTS not in taken:
            app.output(RESULTS, required=False)
        if not self._keeps_records:
            # Beside plain programs no coordinator of ours may run, and nothing would consume that queue.
            queue = None if self.wiring.plain else PROGRESS_QUEUE
            app.output(PROGRESS_KEY, queue=queue, required=not self.wiring.plain, exchange=PROGRESS_EXCHANGE)

    # -- handling --------------------------------------------------------------------------------------

    def _handler(self, spec: RoleSpec, role: Role, work: Callable[..., Awaitable[Products]]) -> Handler:
        async def handled(fields: dict[str, Any], message: Message) -> Products:
            with _telling_of_refusals(spec):
                try:
                    return await work(spec, role, fields, message)
                except _Declined as error:
                    return self._declined(spec, role, error)

        return handled

    def _take(self, spec: RoleSpec, role: Role, fields: dict[str, Any], message: Message) -> Assignment | None:
        """Return the assignment if it is for this role; None to ignore it.

        Raises:
            Reject: It can't be handled.
            _Declined: It is too large, or one too many.
        """
        status = fields.get("status")
        if self.is_broadcast:
            if status != role.takes or not self._is_for(spec, fields.get("Module")):
                self.left_alone[spec.name] += 1
                return None
        elif status != role.takes:
            said = repr(status)[:60] if "status" in fields else "none"
            raise Reject(f"status {said}, and the {role.name} takes {role.takes!r}", reason="wrong-status")
        assignment = receive(fields, message, first=role.takes == "submitted")
        finding = self._finding(assignment)
        if finding.doubt is not None:
            _logger.warning("%s: %s is not signed by a role that may: %s", spec.name, assignment, finding.doubt)
        _logger.debug("%s: received %s", spec.name, assignment)
        if _is_first(role, assignment) and (refusal := self._refusal(assignment)) is not None:
            raise _Declined(assignment, refusal)
        return assignment

    def _refusal(self, assignment: Assignment) -> Refusal | None:
        """Return why a new submission is not taken; None if it is."""
        data, most = assignment.file(), self.wiring.course.largest_submission
        if data is not None and len(data) > most:
            size = counted(len(data), "byte")
            return Refusal(f"the file is too large: it has {size}, and at most {most} are taken", is_kept=False)
        return self.floods.refusal(assignment.student, assignment.module, assignment.id)

    def _declined(self, spec: RoleSpec, role: Role, error: _Declined) -> Products:
        """Return the report of a submission that is not taken: it goes to nobody else."""
        why, is_kept = error.refusal
        moved = error.assignment.moved(DECLINED, role.name, Decision(BY_ITSELF, remark=why))
        self.declined[spec.name] += 1
        _logger.warning("%s: %s: %s", spec.name, moved, why)
        return [self._sign(Progress.of(moved, whole=is_kept))]

    def _finding(self, assignment: Assignment) -> Finding:
        """Return what the signature of the last hop is worth. Raises Reject if the course's policy refuses it."""
        signatures = self.wiring.course.signatures
        return Finding() if signatures is None else signatures.check(assignment)

    def _sign(self, assignment: Assignment) -> Assignment:
        return assignment if self.signer is None else self.signer.sign(assignment)

    def _is_for(self, spec: RoleSpec, module: object) -> bool:
        if spec.role != "demonstrator":
            return True
        if spec.module is not None:
            return module == spec.module.name
        return module not in [other.module.name for other in self.specs if other.module is not None]

    async def _pass_on(self, spec: RoleSpec, role: Role, fields: dict[str, Any], message: Message) -> Products:
        assignment = self._take(spec, role, fields, message)
        return [] if assignment is None else self._decided(spec, role, assignment, None)

    async def _mark(self, spec: RoleSpec, role: Role, fields: dict[str, Any], message: Message) -> Products:
        assignment = self._take(spec, role, fields, message)
        if assignment is None:
            return []
        marker = self.markers.get(assignment.module)
        if marker is None:
            return self._decided(spec, role, assignment, None)
        async with self.turns.turn(assignment.student):
            decision = await asyncio.to_thread(marker, assignment.solution(), assignment.name)
        return self._decided(spec, role, assignment, decision)

    def _decided(self, spec: RoleSpec, role: Role, assignment: Assignment, marked: Decision | None) -> Products:
        """Return what to publish. marked: the decision of a marking scheme, if there is one."""
        decision = marked or Decision(BY_ITSELF)
        moved = self._sign(decide(assignment, role, role.actions[0], decision, by_scheme=marked is not None))
        _logger.info("%s: %s", spec.name, moved)
        return [moved, Progress.of(moved, whole=_is_first(role, assignment))]

    async def _confirm(self, spec: RoleSpec, role: Role, fields: dict[str, Any], message: Message) -> Products:
        from rabbitry.apps.grading.records.course import confirm
        from rabbitry.apps.grading.records.judging import with_judgement
        from rabbitry.apps.grading.records.releases import hold

        assignment = self._take(spec, role, fields, message)
        if assignment is None:
            return []
        moved = decide(assignment, role, role.actions[0], Decision(BY_ITSELF))
        kept = await self._keep(moved)
        identity = message.id or uuid4().hex

        def work(connection: Connection) -> tuple[str, Assignment | None]:
            findings = findings_of(self.wiring.course.signatures, self.signer, moved)
            if not confirm(connection, moved, identity, kept, findings=findings):
                return ", as once before", None
            result = with_judgement(connection, moved, self.wiring.course)
            is_held = hold(connection, result, self.wiring.exchange)
            return (", and its result is held", None) if is_held else ("", result)

        what, result = await self._db.write(work)
        _logger.info("%s: %s%s", spec.name, moved, what)
        return [] if result is None else [self._sign(result)]

    async def _to_inbox(self, spec: RoleSpec, role: Role, fields: dict[str, Any], message: Message) -> Products:
        from rabbitry.apps.grading.records.course import record
        from rabbitry.apps.grading.records.inbox import put

        assignment = self._take(spec, role, fields, message)
        if assignment is None:
            return []
        if role.name == "coordinator":
            # The confirmation is recorded by the page or a command, which keep no files.
            kept, finding = await self._keep(assignment), self._finding(assignment)
            await self._db.write(partial(record, assignment=assignment, kept=kept, finding=finding))
        identity = message.id or uuid4().hex
        work = partial(put, role=role, assignment=assignment, exchange=self.wiring.exchange, message=identity)
        is_new = await self._db.write(work)
        _logger.info("%s: %s, %s", spec.name, assignment, "waits for a person" if is_new else "is in the inbox already")
        return [Progress.of(assignment, whole=True)] if _is_first(role, assignment) else []

    async def _record(self, reports: list[dict[str, Any]], messages: list[Message], batch: Batch) -> None:
        """Record reports in one transaction. One that can't be recorded is settled alone.

        If the records or files can't be reached, or are locked, no report is at fault: all come again as the stage's
        policy says. A batch that failed as a whole would be handled at once in halves, each of which would wait anew.
        """
        told: dict[int, tuple[Progress, Finding]] = {}
        for index, report in enumerate(zip(reports, messages, strict=True)):
            try:
                assignment = self._reported(*report)
                told[index] = assignment, self._finding(assignment)
            except Reject as error:
                batch.fail(index, error)
        try:
            await self._record_told(told, batch)
        except RecordsAway as error:
            for index in told:
                batch.fail(index, error)

    async def _record_told(self, told: Mapping[int, tuple[Progress, Finding]], batch: Batch) -> None:
        """Record the reports of a batch, by their places in it."""
        from rabbitry.apps.grading.records.course import Report, record_all

        kept = await self._keep_reported({index: assignment for index, (assignment, _) in told.items()})
        found = []
        for index, (assignment, finding) in told.items():
            file = kept.get(index)
            if isinstance(file, FilesError):
                batch.fail(index, file)
            else:
                found.append(Report(assignment, file, finding))
        if found:
            await self._db.write(partial(record_all, reports=found))

    def _reported(self, fields: dict[str, Any], message: Message) -> Progress:
        """Return a report that is to be recorded. Raises Reject."""
        from rabbitry.apps.grading.records.course import CONFIRMED

        if fields.get("status") == CONFIRMED:
            raise Reject("only the coordinator that keeps these records can confirm a submission")
        if fields.get("status") not in [DECLINED, *(role.takes for role in ROLES.values())]:
            raise Reject(f"unknown status {str(fields.get('status'))[:60]!r}")
        assignment = Progress.received(fields, message)
        if assignment.status == DECLINED and assignment.step != _DECLINED_AT:
            raise Reject("only a submission that no role has handled can be declined")
        return assignment

    async def _keep_reported(self, told: Mapping[int, Progress]) -> dict[int, Kept | FilesError | None]:
        """Store the files that reports bring, several at once. Return what became of each."""
        found = []
        for index, assignment in told.items():
            if SOLUTION not in assignment and ANSWER not in assignment:
                continue
            if is_sealed(assignment):
                found.append(index)
            else:
                _logger.warning("records: the file reported for %s is another one, and not kept", assignment)

        stored = await asyncio.gather(*(self._keep(told[index]) for index in found), return_exceptions=True)
        kept: dict[int, Kept | FilesError | None] = {}
        for index, one in zip(found, stored, strict=True):
            if isinstance(one, BaseException) and not isinstance(one, FilesError):
                raise one
            kept[index] = one
        return kept

    async def _ask(self, asked: Asked, message: Message) -> Reply:
        return await record_request(asked, message, self._db)

    async def _answer(self, told: Answer, message: Message) -> AnswerReply:
        try:
            return await record_answer(told, self._db, self.wiring.course, self.wiring.exchange, self.files)
        except Reject as error:
            _logger.warning("answers: the answer to request %s becomes a dead letter: %s", told.Request, error)
            raise

    async def _keep(self, assignment: Assignment) -> Kept | None:
        """Store the file of an assignment; None if there is none to store. Raises FilesError and RecordsError."""
        if self.files is None:
            return None
        if (stored := self._stored.pop(assignment.id, None)) is not None:
            return stored
        data = assignment.file()
        if data is None:
            return None
        kept = await asyncio.to_thread(self.files.keep, data)
        if kept is not None:
            self._stored[assignment.id] = kept
            while len(self._stored) > _MOST_STORED:
                self._stored.popitem(last=False)
        else:
            _logger.warning("the file of %s is not kept: %s is more than largest_submission",
                            assignment, counted(len(data), "byte"))  # fmt: skip
        return kept

    @property
    def _db(self) -> Database:
        assert self.database is not None, "a role that stores something needs a database"  # noqa: S101 # narrows
        return self.database


class _Declined(RabbitryError):
    """A submission that is not taken, and why."""

    def __init__(self, assignment: Assignment, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.assignment = assignment
        self.refusal = refusal


def _is_first(role: Role, assignment: Assignment) -> bool:
    """Return whether this role is the first that took a submission, and therefore sends the file to the records."""
    return role.takes == "submitted" and assignment.step == 1


def _of_batches(handler: Handler) -> Callable[..., Awaitable[list[Outgoing]]]:
    """Return the handler of batches that handles each of their messages by itself."""

    async def handled(assignments: list[dict[str, Any]], messages: list[Message], batch: Batch) -> list[Outgoing]:
        async def handle(index: int) -> Products:
            try:
                return await handler(assignments[index], messages[index])
            except Exception as error:  # noqa: BLE001 - it settles this message alone
                batch.fail(index, error)
                return []

        made = await asyncio.gather(*map(handle, range(len(batch))))
        return [Outgoing(product, index=index) for index, products in enumerate(made) for product in products]

    return handled


@contextmanager
def _telling_of_refusals(spec: RoleSpec) -> Iterator[None]:
    try:
        yield
    except Reject as error:
        _logger.warning("%s: an assignment becomes a dead letter: %s", spec.name, error)
        raise
