"""Marks a submission: runs every part of a scheme in its own sandbox, and adds up the points."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct

from rabbitry._words import counted, reason
from rabbitry.apps.grading.exceptions import SandboxFailed, SandboxUnavailable
from rabbitry.apps.grading.marking import _reporter
from rabbitry.apps.grading.marking._bubblewrap import shown_to_submissions
from rabbitry.apps.grading.marking._confine import Confinement, interpreter
from rabbitry.apps.grading.marking._feedback import Line, Shown, cut_line, feedback
from rabbitry.apps.grading.marking._pytest_report import TestReport, read_report
from rabbitry.apps.grading.marking._tools import put_tools
from rabbitry.apps.grading.marking._workspace import put, workspace
from rabbitry.apps.grading.marking.archives import unpack
from rabbitry.apps.grading.marking.sandbox import Outcome, confinement, run_in_bounds, why_it_ended
from rabbitry.apps.grading.marking.scheme import Expect, Part, Scheme, exact

_MAX_REGEX_SECONDS: Final = 2
"""Of CPU time."""
_SEARCH_PATIENCE: Final = 120.0
"""Seconds after which a busy machine is blamed, and not the submission."""


class PartResult(Struct):
    """The result of one part."""

    name: str
    points: float
    out_of: float
    passed: bool
    output: str
    """Why it did not pass, and the submission's output: readable text of bounded length."""
    bonus: bool = False
    """Whether the points are added on top of the scheme's maximum."""


class Marking(Struct):
    """The mark of a submission, and the reasons."""

    mark: float
    """The exact decimal sum of the parts' points; bonus parts may raise it above `out_of`."""
    out_of: float
    feedback: str
    """For the student: a line for each part, each followed by what went wrong; of hidden parts the points together."""
    parts: list[PartResult]


def mark(scheme: Scheme, solution: bytes, name: str, *, allow_weak: bool = False) -> Marking:
    """Run and mark a submission, which may be hostile. Blocks for up to the sum of all parts' wall-clock limits.

    `name` is the submission's file name; an archive (`is_archive`) is unpacked. With `allow_weak`, a machine that can't
    confine a submission does what it can (see docs/marking.md). No process or file of the submission is left when this
    returns or raises.

    Raises:
        SubmissionRefused: The submission can't be marked.
        SandboxUnavailable: The submission can't be run safely on this machine.
        SandboxFailed: The machine failed, not the submission.
    """
    shut_in = confinement(allow_weak=allow_weak)
    if shown_to_submissions(scheme.folder) and not allow_weak:
        raise SandboxUnavailable(
            f"every submission can read the scheme's folder {scheme.folder}: move it outside of "
            "/usr and of the folder of this Python"
        )
    with workspace() as folder:
        room = min(part.limits.disk for part in scheme.part) // 2
        unpack(solution, name, folder / "submission", room=room, file=scheme.scheme.file, shut_in=shut_in)
        marked = [_mark_part(part, scheme, shut_in, folder) for part in scheme.part]
    hidden = scheme.hidden(datetime.now(UTC))
    total = float(sum((exact(line.points) for line in marked), Decimal(0)))
    return Marking(
        mark=total,
        out_of=scheme.out_of,
        feedback=feedback(scheme.name, total, scheme.out_of, marked, hidden, scheme.scheme.reveal),
        parts=[
            PartResult(line.name, line.points, line.out_of, line.passed, line.shown.text(), line.bonus)
            for line in marked
        ],
    )


def _mark_part(part: Part, scheme: Scheme, shut_in: Confinement, folder: Path) -> Line:
    own = folder / "part"
    put(folder, "part")
    put_tools(own, part.limits)
    try:
        if part.pytest is not None:
            return _run_tests(part, scheme.folder / part.pytest, [], shut_in, folder)
        if part.notebook is not None:
            return _run_tests(part, scheme.folder / part.notebook, [str(scheme.scheme.file)], shut_in, folder)
        return _run_command(part, shut_in, folder)
    finally:
        shutil.rmtree(own)


def _run_command(part: Part, shut_in: Confinement, folder: Path) -> Line:
    put(folder / "part", "stdin", part.stdin.encode())
    argv = ["sh", "-c", part.command] if isinstance(part.command, str) else part.command or []
    outcome = run_in_bounds(shut_in, folder, argv, part.limits)
    why = None
    if outcome.stopped is not None or outcome.code != part.exit:
        why = why_it_ended(outcome, part.limits) or f"exited with {outcome.code}, not with {part.exit}"
    elif part.expect is not None:
        why = _why_unexpected(outcome.stdout.decode("utf-8", "replace"), part.expect)
    return _line(part, part.points if why is None else 0.0, why, outcome)


def _run_tests(part: Part, file: Path, more: list[str], shut_in: Confinement, folder: Path) -> Line:
    """Run a file of tests. more: the further arguments of the reporter: for a notebook, its name."""
    kind = "pytest" if part.notebook is None else "notebook"
    own = folder / "part"
    put(own, "stdin", b"")
    put(own, "reporter.py", Path(_reporter.__file__).read_bytes())
    put(own, "tests")
    try:
        put(own / "tests", file.name, file.read_bytes())
    except OSError as error:
        raise SandboxFailed(f"the tests of part {part.name!r} can't be read: {reason(error)}") from error
    inside = shut_in.inside(folder)
    # -I: Python's and pytest's modules can't be replaced by the submission's.
    reporter = [str(interpreter()), "-I", "-B", f"{inside}/part/reporter.py"]
    argv = [*reporter, kind, f"{inside}/part/tests/{file.name}", *more]
    key = secrets.token_bytes(32)
    outcome = run_in_bounds(shut_in, folder, argv, part.limits, key=key)
    report = read_report(outcome.report, key)
    if not report.began and outcome.stopped is None:
        said = outcome.stderr.decode("utf-8", "replace").strip()[-300:]
        raise SandboxFailed(f"{kind} could not be started in the sandbox for part {part.name!r}: {said}")
    if report.passed == len(report.tests) > 0:
        return _line(part, part.points, None, outcome)
    why = _why_tests_failed(report, why_it_ended(outcome, part.limits), "tests" if kind == "pytest" else "checks")
    return _line(part, _share(part.points, report.passed, len(report.tests)), why, outcome)


def _line(part: Part, points: float, why: str | None, outcome: Outcome) -> Line:
    return Line(part.name, points, part.points, part.bonus, why is None, Shown.of(why, outcome))


def _share(points: float, passed: int, tests: int) -> float:
    """Return the points for passing some of the tests, rounded to hundredths."""
    share = exact(points) * passed / max(1, tests)
    return float(min(exact(points), share.quantize(Decimal("0.01"), ROUND_HALF_UP)))


def _why_tests_failed(report: TestReport, ended: str | None, what: str) -> str:
    lines = [f"{report.passed} of {counted(len(report.tests), what.removesuffix('s'))} passed"]
    if ended is not None:
        lines.append(ended)
    elif not report.ended:
        lines.append(f"the program ended before all {what} were run")
    if report.broken is not None:
        lines.append(f"the {what} could not be {'loaded' if what == 'tests' else 'run'}: " + _last_lines(report.broken))
    elif not report.tests:
        lines.append("no test was found")
    for test, why in report.tests.items():
        if why is not None:
            name, first = test.partition(" ")[2], why.strip().partition("\n")[0]
            lines.append(f"{name}: {first or 'failed'}")
    return "\n".join(cut_line(line) for line in lines)


def _last_lines(text: str) -> str:
    wrong = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return "; ".join(wrong or text.strip().splitlines()[-1:])


def _why_unexpected(printed: str, expect: Expect) -> str | None:
    if expect.contains is not None:
        return None if expect.contains in printed else "did not print the expected text"
    if expect.regex is not None:
        return _why_no_match(expect.regex, printed)
    got, wanted = _trimmed(printed), _trimmed(expect.exact or "")
    if got == wanted:
        return None
    pairs = zip(got, wanted, strict=False)
    differs = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), min(len(got), len(wanted)) + 1)
    if differs > len(got):
        return f"printed {counted(len(got), 'line')}, but more are expected"
    return f"the output differs from what is expected, from line {differs} on"


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


_SEARCH: Final = (
    "import json, re, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1]) + 1)); "
    "sys.exit(0 if re.search(*json.load(sys.stdin), re.MULTILINE) else 3)"
)


def _why_no_match(regex: str, printed: str) -> str | None:
    # In a separate process: some patterns take for ever on some texts, and a submission may print one on purpose.
    # The limit is CPU time, so that a mark does not depend on what else the machine does.
    argv = [str(interpreter()), "-I", "-c", _SEARCH, str(_MAX_REGEX_SECONDS)]
    try:
        text = json.dumps([regex, printed]).encode()
        done = subprocess.run(  # noqa: S603  # no argument comes from a submission
            argv, input=text, capture_output=True, timeout=_SEARCH_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxFailed(
            f"the output could not be searched within {_SEARCH_PATIENCE:g} s: this machine is too busy"
        ) from error
    if done.returncode == -signal.SIGXCPU:
        return f"the output could not be searched within {_MAX_REGEX_SECONDS} s of CPU time"
    if done.returncode not in {0, 3}:
        raise SandboxFailed(
            f"the output could not be searched: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}"
        )
    return None if done.returncode == 0 else "did not print the expected text"
