"""The shapes of the answers of a course's page, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import TypedDict

from rabbitry.apps.grading.rows import Release, Request


class Submission(TypedDict):
    """A submission. attempt: 1 for the student's first in its module. latest: whether it is the newest.

    sha256, size: of the file as it was handed in, if it is kept. timing: how it stands to the deadlines of its module,
    if there are any. final_mark: the mark less the penalty. counts: whether it is the student's one that counts.
    held_until: when the results of its module are released; null if they are. A student sees no marks before.
    """

    id: str
    student: str
    module: str
    attempt: int
    latest: bool
    name: str
    status: str
    mark: float | None
    out_of: float | None
    feedback: str | None
    submitted_at: str
    updated_at: str
    sha256: str | None
    size: int | None
    timing: str | None
    late_seconds: float
    penalty: float
    final_mark: float | None
    counts: bool
    held_until: str | None


class Comment(TypedDict):
    """A comment on a line, counted from 1. cell: of a notebook, in which the line is; null for a line of the file.

    file: the path in a submitted archive; null for a file that is none.
    """

    line: int
    text: str
    cell: int | None
    file: str | None


class PointsBy(TypedDict):
    """The points by a criterion of a rubric. of: the most that it gives."""

    name: str
    points: float
    of: float


class PersonalMark(TypedDict):
    """The mark of one of several demonstrators. criteria: by the module's rubric. comments: on lines of the file."""

    who: str
    mark: float
    out_of: float | None
    feedback: str | None
    criteria: list[PointsBy]
    comments: list[Comment]


class Hop(TypedDict):
    """A hop of a submission: the new status, and by whom, when and where.

    signer: the name of the key that signed it. doubt: why it is not taken as signed; null if it is, or need not be.
    comments: on lines of the file. marks: those of several demonstrators, of which `mark` was made by a rule.
    """

    role: str
    status: str
    who: str
    place: str
    at: str
    mark: float | None
    out_of: float | None
    feedback: str | None
    remark: str | None
    signer: str | None
    doubt: str | None
    comments: list[Comment]
    marks: list[PersonalMark]


class Requests(TypedDict):
    """A page of the requests that wait, oldest first."""

    requests: list[Request]
    total: int
    each: int


class Asked(TypedDict):
    """The number of a new request."""

    request: int


class Acceptance(TypedDict):
    """Who had a submission count that the deadlines forbid, when and why."""

    who: str
    at: str
    remark: str


class Withdrawal(Acceptance):
    """An acceptance that was withdrawn: by whom, when and why (reason)."""

    withdrawn_by: str
    withdrawn_at: str
    reason: str


class Described(Submission):
    """A submission with its hops and the requests about it, and whether its file can be had.

    accepted: the acceptance that holds; null if there is none. withdrawn: earlier ones, oldest first.
    releases: what was set for the results of its module, the last first.
    """

    history: list[Hop]
    requests: list[Request]
    accepted: Acceptance | None
    withdrawn: list[Withdrawal]
    releases: list[Release]
    has_file: bool


class Person(TypedDict):
    """What the page's user may see and do.

    role: in the course; null for users of the dashboard alone. name: under which decisions are recorded; null if it can
    be typed. student: the number of a student, who sees only their own. modules: a demonstrator's; null for all.
    inboxes: the roles whose inboxes they see.
    """

    role: str | None
    name: str | None
    student: str | None
    modules: list[str] | None
    inboxes: list[str]
    submits: bool


class Moment(TypedDict):
    """A time, and the seconds until it by the server's clock, negative once it has passed: a browser's may be wrong.

    is_over: whether it has passed, with the module's grace.
    """

    at: str
    seconds: float
    is_over: bool


class Deadlines(TypedDict):
    """When a module opens, is due and closes for the page's user; null for never."""

    opens: Moment | None
    due: Moment | None
    closes: Moment | None


class Overview(TypedDict):
    """How many submissions are in each status and inbox, and a page of them, the last changed first.

    away: why there are no submissions, if the records are elsewhere and can't be asked; null if they were read.
    newest: the number of the latest entry of each inbox. outbox: decisions to be published. requests: those for another
    look that wait. each: of a page. deadlines: of the modules that have any, for users who submit. All of it as far as
    the page's user, `person`, may see it.
    """

    statuses: dict[str, int]
    inboxes: dict[str, int]
    newest: dict[str, int]
    outbox: int
    requests: int
    submissions: list[Submission]
    total: int
    each: int
    modules: list[str]
    deadlines: dict[str, Deadlines]
    who: str
    person: Person
    away: str | None


class Brief(TypedDict):
    """A submission that waits in an inbox. item: the number of its entry.

    is_marked: whether the page's user has marked it, and others mark it, too.
    """

    id: str
    item: int
    role: str
    arrived_at: str
    student: int | str
    module: str | None
    name: str | None
    mark: float | None
    out_of: float | None
    feedback: str | None
    sent_back: int
    is_marked: bool


class Inbox(TypedDict):
    """A page of an inbox, oldest first."""

    items: list[Brief]
    total: int
    each: int


class Criterion(TypedDict):
    """A criterion of a rubric. points: the most that it gives. comments: texts to choose from."""

    name: str
    points: float
    comments: list[str]


class Said(Comment):
    """A comment, and the role and name of the person who made it."""

    role: str
    who: str


class Output(TypedDict):
    """An output of a notebook's cell. kind: text, error, picture (its number) or other (the names of its types)."""

    kind: str
    text: str
    picture: int | None


class Cell(TypedDict):
    """A cell of a notebook. kind: code, with outputs, raw, or markdown, with marks: parts that open and close.

    pieces: its text.
    """

    kind: str
    marks: list[tuple[str, str]]
    pieces: list[tuple[str, str | None]]
    outputs: list[Output]


class File(TypedDict):
    """A file in a submitted archive."""

    path: str
    size: int
    is_text: bool


class Text(TypedDict):
    """The text of a file; empty if it is none. pieces, is_cut: those of `Opened`. notebook: its cells, if it is one.

    files: those in the archive, if it is one. unlisted: how many more it has. refused: why it is not unpacked.
    """

    pieces: list[tuple[str, str | None]]
    notebook: list[Cell] | None
    is_cut: bool
    is_binary: bool
    files: list[File] | None
    unlisted: int
    refused: str | None


class Row(TypedDict):
    """A row of two texts side by side. kind: same, changed or skipped (lines that are equal and not shown)."""

    kind: str
    old: int | None
    new: int | None
    before: str
    after: str
    skipped: int


class ChangedFile(TypedDict):
    """A file that differs from that of the attempt before. change: changed, new or removed."""

    path: str
    change: str


class Changes(TypedDict):
    """The lines that changed since the attempt before, which has this id and file name.

    Of an archive they are those of the file `path`; files: those that differ; unlisted: how many more do. is_binary:
    the file is not text.
    """

    id: str
    name: str
    path: str | None
    files: list[ChangedFile] | None
    unlisted: int
    rows: list[Row]
    is_cut: bool
    is_binary: bool


class Opened(Brief, Text):
    """A submission that waits, with its solution if that is text. is_cut: only the beginning is here.

    pieces: the same text in pieces, each with the kind of its tokens or `null`, for syntax colours.

    comments: on lines of the text, of the hops so far. marks: of several demonstrators in the latest correction.

    rubric: the criteria by which the role's people judge it; empty if they give a mark as they like, or none. is_final:
    whether a mark that was given can't be changed or taken back.
    """

    solution: str
    comments: list[Said]
    marks: list[PersonalMark]
    rubric: list[Criterion]
    is_final: bool
    actions: list[str]
    remarks: list[str | None]


class Before(TypedDict):
    """The id of the student's attempt before a submission that waits; null if there is none whose file is kept."""

    id: str | None


class Submitted(TypedDict):
    """The id of a new submission."""

    id: str


class Decided(TypedDict):
    """A submission and its new status."""

    id: str
    status: str


class UnsentDecision(TypedDict):
    """A decision that can be taken back. item: the inbox entry. seconds: how long it is held at least."""

    item: int
    id: str
    student: str
    module: str
    action: str
    who: str
    seconds: float


class Unsent(TypedDict):
    """The person's decisions that can be taken back."""

    decisions: list[UnsentDecision]


class TakenBack(TypedDict):
    """A submission that waits in the inbox again. item: the number of its entry."""

    id: str
    item: int


class Solution(TypedDict):
    """A submission beside a similar one."""

    id: str
    student: str
    name: str


class Pair(TypedDict):
    """Two similar submissions. similarity, contained: shares of fingerprints, 0 to 1. shared: their number."""

    one: Solution
    other: Solution
    similarity: float
    contained: float
    shared: int


class Similar(TypedDict):
    """The similar solutions of a module, as they were found at a time; None if they were not sought yet.

    left_out: submissions that were not compared, or only in part, with the reason. error: why nothing was found.
    """

    pairs: list[Pair]
    compared: int
    left_out: dict[str, str]
    at: str | None
    error: str | None
    is_running: bool


class Part(TypedDict):
    """A part of a text. block: the number of the match that it is a part of; None if it matches nothing."""

    text: str
    block: int | None


class Side(Solution):
    """A text of two, in parts."""

    parts: list[Part]


class Compared(TypedDict):
    """Two texts side by side."""

    one: Side
    other: Side


class Marks(TypedDict):
    """The distribution of marks. classes: students by tenths of the maximum. The others are shares of the maximum."""

    given: int
    without: int
    classes: list[int]
    mean: float | None
    median: float | None
    least: float | None
    most: float | None


class Stage(TypedDict):
    """How long a role takes, in seconds; stage `all`: from the submission to its confirmation."""

    stage: str
    number: int
    p50: float | None
    p95: float | None


class Wait(TypedDict):
    """A submission that waits. role: for whom; seconds: since its last hop."""

    id: str
    student: str
    status: str
    role: str | None
    seconds: float


class Work(TypedDict):
    """What waits for a person of a role, or for anybody of it if `who` is null, and what they have decided.

    waiting: submissions. requests: for another look. seconds: how long the first of these has waited; null if none.
    """

    role: str
    who: str | None
    waiting: int
    requests: int
    seconds: float | None
    decided: int
    last_at: str | None


class Room(TypedDict):
    """How many bytes the kept files take, compressed, and may take. used: null if no file is kept yet."""

    used: int | None
    total: int


class Statistics(TypedDict):
    """The statistics of a module. declined: submissions that were too large or too many.

    waiting: those that wait longest. work: what waits for whom, the longest first.
    """

    module: str
    submissions: int
    declined: int
    students: int
    marks: Marks
    stages: list[Stage]
    work: list[Work]
    waiting: list[Wait]


class Given(TypedDict):
    """A mark, and its maximum."""

    mark: float | None
    out_of: float | None


class Change(TypedDict):
    """A mark that changed, or would."""

    id: str
    student: str
    old: Given
    new: Given


class Failure(TypedDict):
    """A submission that could not be marked, and why."""

    id: str
    student: str
    error: str


class RegradeWanted(TypedDict):
    """The submissions that were chosen to be marked again. since: in UTC; null for all."""

    module: str
    since: str | None
    student: str | None
    all_attempts: bool
    remark: str


class RegradeTrial(TypedDict):
    """A dry run. able: the submissions that it marks. left_out: reason → how many can't be marked again.

    marked, changed, failed: so far; the first of them are in `changes` and `failures`. error: why it ended before.
    """

    wanted: RegradeWanted
    able: int
    left_out: dict[str, int]
    at: str
    is_running: bool
    marked: int
    changed: int
    failed: int
    changes: list[Change]
    failures: list[Failure]
    error: str | None


class RegradeRun(TypedDict):
    """A run of marking again. ended_at: null while something is left. is_coordinators: whether a coordinator does it.

    submissions: all of it. reopened: those that were submitted again. lost: whose files can't be had. unconfirmed: that
    were not confirmed any more.
    """

    id: int
    module: str
    since: str | None
    student: str | None
    all_attempts: bool
    who: str
    remark: str
    begun_at: str
    ended_at: str | None
    is_coordinators: bool
    submissions: int
    reopened: int
    lost: int
    unconfirmed: int


class Regrades(TypedDict):
    """The runs of a module, the latest first, and its last dry run."""

    runs: list[RegradeRun]
    trial: RegradeTrial | None


class Regraded(TypedDict):
    """The result of a run. confirmed: how many are confirmed again. changes: the first of the marks that changed."""

    id: int
    module: str
    confirmed: int
    changed: int
    changes: list[Change]
