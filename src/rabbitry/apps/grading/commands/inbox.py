"""`rabbitry grading inbox`: submissions that wait for a person's decision."""

from __future__ import annotations

import contextlib
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabbitry._ids import NoSuchID
from rabbitry._words import counted
from rabbitry.apps.grading.commands.access import existing
from rabbitry.apps.grading.commands.files import SaveAs
from rabbitry.apps.grading.commands.files import save as save_as
from rabbitry.apps.grading.commands.options import Config
from rabbitry.apps.grading.commands.records import Find, Limit, OfModule, mark_of
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import DatabaseURL, Json, Offset
from rabbitry.runtime.output import many_lines, one_line, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rabbitry.apps.grading.comments import LineComment
    from rabbitry.apps.grading.message import Assignment, Decision
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.inbox import Item
    from rabbitry.apps.grading.roles import RoleName
    from rabbitry.apps.grading.rubric import Score

app: typer.Typer = typer.Typer()
_PLACE = re.compile(r"(?:([^\n]{1,1000}?):)??(?:([0-9]{1,9}):)?([0-9]{1,9})=(.*\S.*)", re.DOTALL)
"""A comment as it is typed: file, cell, line and text. What can be read as a cell is no file."""
RoleOption = Annotated[
    str | None, typer.Option("--role", metavar="ROLE", help="demonstrator, assistant or coordinator.")
]
ItemId = Annotated[str, typer.Argument(metavar="ID", help="The submission's id, or a unique prefix of it.")]


@app.command("list")
def list_(
    context: typer.Context,
    role: RoleOption = None,
    module: OfModule = None,
    find: Find = "",
    limit: Limit = None,
    offset: Offset = 0,
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """List what waits for a decision, role by role, oldest first.

    Example: rabbitry grading inbox list --role assistant
    """
    from rabbitry.apps.grading.records.course import Filter
    from rabbitry.apps.grading.records.inbox import waiting
    from rabbitry.apps.grading.roles import ROLES

    names = [_role(role)] if role is not None else list(ROLES)
    with existing(context, database) as records:
        if records is None:
            return
        items = [
            item
            for name in names
            for item in records.read_now(partial(waiting, role=name, wanted=Filter(find, module)))
        ]
    end = None if limit is None else offset + limit
    for item in items[offset:end]:
        if as_json:
            print_json(_described(item))
            continue
        found = item.assignment
        mark = mark_of(found.get("Mark"), found.get("OutOf"))
        student, module = f"student {found.student}", found.module or "no module"
        print(one_line(f"{found.id}  {item.role:12}  {student}  {module}  {mark}  since {item.arrived_at[:19]}"))
    if not items[offset:end] and not as_json:
        say("no submission waits for a decision")


@app.command("show")
def show(
    context: typer.Context,
    id: ItemId,
    role: RoleOption = None,
    database: DatabaseURL = None,
    *,
    lines: Annotated[bool, typer.Option("--lines", help="Number the lines of the solution.")] = False,
    path: Annotated[str | None, typer.Option(metavar="FILE", help="Show this file of an archive.")] = None,
    as_json: Json = False,
) -> None:
    """Show one waiting submission: the solution, and its history.

    Example: rabbitry grading inbox show 3f2a
    """
    from rabbitry.apps.grading.comments import place_of
    from rabbitry.apps.grading.personal import last_marks
    from rabbitry.apps.grading.records.inbox import item
    from rabbitry.apps.grading.showing import comments_in

    with _opened(context, database, id) as records:
        found = records.read_now(partial(item, identity=id, role=None if role is None else _role(role)))
    assignment = found.assignment
    if as_json:
        solution = assignment.get("Solution", assignment.get("Answer"))
        encoding = {"encoding": "base64"} if assignment.is_binary else {}
        print_json(_described(found) | {"solution": solution} | encoding)
        return
    for name, value in (
        ("id", assignment.id),
        ("role", found.role),
        ("student", assignment.student),
        ("module", assignment.module),
        ("file", assignment.name),
        ("arrived", found.arrived_at[:19]),
        ("mark", mark_of(assignment.get("Mark"), assignment.get("OutOf"))),
        ("feedback", assignment.get("Feedback") or ""),
        *(("marked by", f"{one.who}: {mark_of(one.mark, one.out_of)}") for one in last_marks(assignment.history)),
        *(("remark", remark) for remark in assignment.remarks),
        *(("comment", f"{place_of(one)} ({one['who']}): {one['text']}") for one in comments_in(assignment.history)),
    ):
        if value:
            print(f"{name:10}{one_line(str(value))}")
    if (text := _text_of(assignment, path)) is None:
        print(_instead(assignment))
    else:
        print(many_lines(_numbered(text) if lines else text))


def _text_of(assignment: Assignment, path: str | None) -> str | None:
    """Return a submission's text, or that of a file in an archive; None if it is not text."""
    from rabbitry.apps.grading.contents import opened
    from rabbitry.apps.grading.message import readable

    if path is None:
        return assignment.readable_text()
    if not assignment.is_archive:
        raise UsageError("--path names a file in an archive, and this submission is none")
    with opened(assignment.solution(), assignment.name) as contents:
        return readable(contents.read(path))


def _instead(assignment: Assignment) -> str:
    """Return what is shown of a submission that is not text: the files of an archive, and how to save it."""
    from rabbitry.apps.grading.contents import MOST_FILES, opened
    from rabbitry.apps.grading.exceptions import FilesError

    size = counted(len(assignment.solution()), "byte")
    rows = []
    if assignment.is_archive:
        try:
            with opened(assignment.solution(), assignment.name) as contents:
                rows = [f"{one['size']:>10}  {one_line(one['path'])}" for one in contents.listed()]
                rows += [f"and {len(contents.paths) - MOST_FILES} more files"] * (len(contents.paths) > MOST_FILES)
        except (UsageError, FilesError) as error:
            rows = [f"the archive is not unpacked: {error}"]
    return "\n".join([*rows, f"{size} of binary data; save the file with: rabbitry grading inbox save {assignment.id}"])


def _numbered(text: str) -> str:
    rows = text.removesuffix("\n").split("\n")
    return "\n".join(f"{number:{len(str(len(rows)))}}  {row}" for number, row in enumerate(rows, 1))


@app.command("save")
def save(
    context: typer.Context,
    id: ItemId,
    file: SaveAs = None,
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """Save the submitted file, whether decided or not; an existing file is not overwritten.

    Example: rabbitry grading inbox save 3f2a report.zip
    """
    from rabbitry.apps.grading.records.inbox import handed_in

    with _opened(context, database, id) as records:
        assignment = records.read_now(partial(handed_in, given=id)).assignment
    command = f"inbox save {id}"
    save_as(assignment.solution(), assignment.name, assignment.id, file, as_json=as_json, command=command)


Mark = Annotated[float | None, typer.Option(help="The demonstrator's mark.", show_default=False)]
OutOf = Annotated[float | None, typer.Option(help="The maximum mark.", show_default=False)]
NoMark = Annotated[bool, typer.Option("--no-mark", help="Correct without a mark.")]
Feedback = Annotated[str | None, typer.Option(metavar="TEXT", help="The reason for the mark.", show_default=False)]
Points = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CRITERION=POINTS",
        help="Points by a criterion of the module's rubric; once for each.",
        show_default=False,
    ),
]
Comment = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[FILE:][CELL:]LINE=TEXT",
        help="A comment on a line of the file, of a file in an archive, or of a notebook's cell; once for each.",
        show_default=False,
    ),
]
SendBack = Annotated[
    str | None,
    typer.Option(
        metavar="REMARK", help="Send it back to the demonstrator, with this remark (assistant).", show_default=False
    ),
]


@app.command("decide")
def decide(
    context: typer.Context,
    id: ItemId,
    role: RoleOption = None,
    mark: Mark = None,
    out_of: OutOf = None,
    *,
    no_mark: NoMark = False,
    feedback: Feedback = None,
    score: Points = None,
    comment: Comment = None,
    send_back: SendBack = None,
    config: Config = None,
    database: DatabaseURL = None,
    as_json: Json = False,
) -> None:
    """Record a decision: a demonstrator corrects, an assistant validates or sends back, a coordinator confirms.

    The role that runs with --person publishes it. If a submission was sent back and no new mark or feedback is given,
    the demonstrator's earlier ones are kept. Example:
    rabbitry grading inbox decide 3f2a --mark 8 --out-of 10 --feedback "Good, but slow"
    """
    from rabbitry.apps.grading.message import Decision, user_name
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.inbox import item, settle
    from rabbitry.apps.grading.roles import role_named

    if no_mark and (mark is not None or out_of is not None):
        raise UsageError("--no-mark can't be combined with --mark or --out-of")
    course = load_course(config)
    decision = Decision(user_name(), mark, out_of, feedback, send_back, _comments(comment or []))
    wanted = None if role is None else _role(role)
    with _opened(context, database, id) as records:
        found = records.read_now(partial(item, identity=id, role=wanted))
        action = "send-back" if send_back is not None else role_named(found.role).actions[0]
        if score:
            if action != "correct" or no_mark or mark is not None or out_of is not None:
                raise UsageError("--score is for a correction, without --mark, --out-of and --no-mark")
            decision = _with_scores(found, decision, _scores(score), course)
        elif action == "correct":
            decision = _with_mark(found, decision, no_mark=no_mark)
        done = records.write_now(partial(settle, found=found, action=action, decision=decision, course=course))
    if as_json:
        print_json({"id": done.id, "role": found.role, "status": done.status, "mark": decision.mark})
    else:
        print(
            f"{done.id}  {done.status}"
            + (f"  {mark_of(decision.mark, decision.out_of)}" if action == "correct" else "")
        )
    if action == "correct" and done.status != "corrected":
        say("the mark is recorded; further demonstrators have to mark this submission")


def _comments(texts: list[str]) -> tuple[LineComment, ...]:
    from rabbitry.apps.grading.comments import LineComment

    found = []
    for text in texts:
        place = _PLACE.fullmatch(text)
        if place is None:
            raise UsageError(
                f"--comment {text!r} is not LINE=TEXT, CELL:LINE=TEXT for a notebook, or FILE:LINE=TEXT for an archive"
            )
        file, cell, line, said = place.groups()
        found.append(LineComment(int(line), said.strip(), None if cell is None else int(cell), file))
    return tuple(found)


@app.command("undo")
def undo(
    context: typer.Context,
    id: ItemId,
    role: RoleOption = None,
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """Take back your last decision on a submission, as long as it has not been sent. It waits in the inbox again.

    The role that runs with --person sends it after the pause of the configuration (undo, 5 s by default). Example:
    rabbitry grading inbox undo 3f2a
    """
    from rabbitry.apps.grading.message import user_name
    from rabbitry.apps.grading.records.undoing import take_back

    wanted = None if role is None else _role(role)
    with _opened(context, database, id) as records:
        done = records.write_now(partial(take_back, identity=id, who=user_name(), role=wanted))
    if as_json:
        print_json({"id": done.assignment.id, "role": done.role})
    else:
        print(f"{done.assignment.id}  waits for the {done.role} again")


def _scores(texts: list[str]) -> dict[str, Score]:
    from rabbitry.apps.grading.rubric import Score

    found: dict[str, Score] = {}
    for text in texts:
        name, equals, points = text.rpartition("=")
        try:
            score = Score(float(points.replace(",", ".")))
        except ValueError as error:
            raise UsageError(f"--score {text!r} is not CRITERION=POINTS") from error
        if not equals:
            raise UsageError(f"--score {text!r} is not CRITERION=POINTS")
        if name.strip() in found:
            raise UsageError(f"--score names criterion {name.strip()!r} twice: give its points once")
        found[name.strip()] = score
    return found


def _with_scores(found: Item, decision: Decision, scores: dict[str, Score], course: Course) -> Decision:
    """Complete a correction with the mark, maximum and feedback by the module's rubric."""
    from rabbitry.apps.grading.rubric import scored

    return scored(course.rubric(found.assignment.module, found.role), scores, decision)


def _with_mark(found: Item, decision: Decision, *, no_mark: bool) -> Decision:
    """Complete a correction with the previous round's mark and feedback; ask if there is no mark at all."""
    from dataclasses import replace

    from rabbitry.apps.grading.message import number

    before = found.assignment
    feedback = before.get("Feedback") if decision.feedback is None else decision.feedback
    if not (isinstance(feedback, str) and feedback):
        feedback = None
    if no_mark:
        return replace(decision, feedback=feedback)
    if decision.mark is not None:
        return replace(decision, feedback=feedback)
    mark = number(before.get("Mark"))
    if mark is not None:
        out_of = number(before.get("OutOf")) if decision.out_of is None else decision.out_of
        return replace(decision, mark=mark, out_of=out_of, feedback=feedback)
    if decision.out_of is None and sys.stdin.isatty() and typer.confirm("Correct without a mark?", err=True):
        return replace(decision, feedback=feedback)
    raise UsageError("no mark: pass --mark, or --no-mark to correct without one")


@contextlib.contextmanager
def _opened(context: typer.Context, url: str | None, id: str) -> Iterator[Database]:
    with existing(context, url) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} waits for a decision")
        yield records


def _role(name: str) -> RoleName:
    from rabbitry.apps.grading.roles import role_named

    return role_named(name).name


def _described(item: Item) -> dict[str, Any]:
    assignment = item.assignment
    return {
        "id": assignment.id,
        "role": item.role,
        "arrived_at": item.arrived_at,
        "student": assignment.student,
        "module": assignment.module,
        "file": assignment.name,
        "mark": assignment.get("Mark"),
        "out_of": assignment.get("OutOf"),
        "feedback": assignment.get("Feedback"),
        "remarks": assignment.remarks,
        "history": assignment.history,
    }
