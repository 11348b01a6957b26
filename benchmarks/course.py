"""The records of a large course: lists and searches on the page, and marking a module again after kills.

The records are in SQLite, with 100,000 submissions of ten modules and their histories, 10,000 entries of an inbox and
1,000 requests for another look. Each list, search and statistic of the page is asked for 20 times, one after the other.

Then the 1,000 submissions of one module, with their files, are marked again by `grading regrade`, which is killed
(SIGKILL) after a quarter and after half of them, the second time with the roles; both go on. Each submission must be
submitted again and corrected once more, no more and no less.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import Connection, func, insert, select
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port

from benchmarks.deadline import running
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import Decision, submission
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, schema
from rabbitry.apps.grading.roles import ROLES, decide

PAGE_TARGET: Final = 200.0
_EACH: Final = 20
_MARKED_AGAIN: Final = "data_mining"
_MODULES: Final = ("cloud_computing", *(f"module_{number}" for number in range(2, 11)))
_BEGAN: Final = datetime(2026, 11, 1, tzinfo=UTC)
_WITHIN: Final = 900.0
_AT_ONCE: Final = 5000


def _fill(connection: Connection, submissions: int) -> None:
    """Record submissions with four hops each, a tenth of them in an inbox, and requests about a hundredth."""
    for first in range(0, submissions, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, submissions))
        connection.execute(insert(schema.submissions), [_submission(number) for number in numbers])
        connection.execute(insert(schema.history), [hop for number in numbers for hop in _hops(number)])
        waiting = [_waiting(number) for number in numbers if number % 10 == 0]
        connection.execute(insert(schema.inbox), waiting)
        asked = [
            {"submission": _id(number), "message": f"m{number}", "reason": "Why?", "asked_at": _at(number)}
            for number in numbers
            if number % 100 == 1
        ]
        connection.execute(insert(schema.requests), asked)


def _id(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}{number:024x}"


def _at(number: int) -> str:
    return (_BEGAN + timedelta(seconds=number * 7919 % 2_000_000, microseconds=number)).isoformat(
        timespec="microseconds"
    )


def _student(number: int) -> str:
    return str(23_000_000 + number // 40)


def _submission(number: int) -> dict[str, Any]:
    status = "corrected" if number % 10 == 0 else "confirmed"
    return {
        "id": _id(number),
        "student": _student(number),
        "module": _MODULES[number % len(_MODULES)],
        "name": "solution.py",
        "status": status,
        "step": 4,
        "mark": number % 11,
        "out_of": 10.0,
        "feedback": "Good, but slow",
        "submitted_at": _at(number),
        "updated_at": _at(number),
        "confirmed_by": f"m{number}" if status == "confirmed" else None,
    }


def _hops(number: int) -> Iterator[dict[str, Any]]:
    ways = (("student", "submitted"), *((role.name, role.gives) for role in ROLES.values()))
    for step, (role, status) in enumerate(ways, 1):
        hop = {"submission": _id(number), "step": step, "role": role, "status": status, "who": "ann"}
        yield hop | {"place": "desk", "at": _at(number)}


def _waiting(number: int) -> dict[str, Any]:
    fields = {"StudentID": _student(number), "Module": _MODULES[number % len(_MODULES)], "SubmissionID": _id(number)}
    body = json.dumps(fields | {"Solution": "print('hello')\n" * 20, "status": "corrected", "History": []}).encode()
    return {
        "role": "assistant",
        "submission": _id(number),
        "step": 2,
        "student": _student(number),
        "module": fields["Module"],
        "exchange": "assignment_exchange",
        "message": f"m{number}",
        "body": body,
        "arrived_at": _at(number),
    }


def _confirm(database: Database, files: Files, number: int) -> None:
    """Record a confirmed submission of the module that is marked again, with its file."""
    data = f"print({number})\n".encode()
    made = submission(number, _MARKED_AGAIN, data, "solution.py", "")
    made["SubmissionID"] = identity = new_id(made)
    for role in ROLES.values():
        given = Decision("automatic", 1.0, 10.0) if role.name == "demonstrator" else Decision("automatic")
        made = decide(made, role, role.actions[0], given)
    work = partial(course.confirm, assignment=made, message=f"m {identity}", kept=files.keep(data))
    assert database.write_now(work)  # the records were empty


def _paths(submissions: int) -> dict[str, str]:
    """Return what the page is asked for."""
    some = submissions // 2 + 1
    last = submissions // 100 - 1
    return {
        "the latest submissions": "overview",
        "a page in the middle": f"overview?page={last // 2}",
        "their last page": f"overview?page={last}",
        "of a module and status": f"overview?module={_MODULES[1]}&status=confirmed",
        "of a student": f"overview?find={_student(some)}",
        "by the beginning of an id": f"overview?find={_id(some)[:6]}",
        "no match": "overview?find=nobody",
        "a submission": f"submissions/{_id(some)}",
        "an inbox": "inbox/assistant",
        "an inbox's last page": f"inbox/assistant?page={last // 10}",
        "an inbox, by student": f"inbox/assistant?find={_student(some)}",
        "requests": "requests",
        "requests of a module": f"requests?module={_MODULES[1]}",
        "statistics of a module": f"stats?module={_MODULES[0]}",
    }


def _measure_page(url: str, submissions: int) -> dict[str, float]:
    """Return the slowest of the page's answers to each request, in milliseconds, the very first one left out."""
    found: dict[str, float] = {}
    with httpx.Client(base_url=url, timeout=60) as page:
        _until(lambda: _answers(page), "the page")
        for name, path in _paths(submissions).items():
            took = []
            for _ in range(_EACH + 1):
                began = time.perf_counter()
                page.get(f"api/{path}").raise_for_status()
                took.append(time.perf_counter() - began)
            found[name] = round(1000 * max(took[1:]), 1)
    return found


def _answers(page: httpx.Client) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return page.get("api/overview").is_success
    return False


def _mark_again(database: Database, number: int, more: dict[str, str]) -> dict[str, object]:
    """Have a module marked again, with the command killed twice and the roles once; count what was done twice."""
    began, kills = time.perf_counter(), 0
    command, run = ("grading", "regrade", "--module", _MARKED_AGAIN), ("grading", "run", "--log-level", "warning")
    with contextlib.ExitStack() as roles:
        process = roles.enter_context(running(run, more))
        for share in (0.25, 0.5):
            with running(command, more) as regrade:
                _until(lambda enough=share * number: database.read_now(_reopened) >= enough, "a part of the run")
                if regrade.poll() is None:
                    regrade.kill()
                    kills += 1
            if share == 0.5:
                process.kill()
                roles.enter_context(running(run, more))
        with running(command, more) as regrade:
            code = regrade.wait(_WITHIN)
        _until(lambda: database.read_now(_open) == 0, "the confirmation of all")
        hops = database.read_now(partial(_rounds, module=_MARKED_AGAIN))
    return {
        "marked_again": number,
        "seconds": round(time.perf_counter() - began, 1),
        "killed_commands": kills,
        "exit_code": code,
        "not_once": sum(rounds != (1, 2) for rounds in hops.values()) + number - len(hops),
    }


def _reopened(connection: Connection) -> int:
    done = select(func.count()).select_from(schema.regraded).where(schema.regraded.c.is_done != 0)
    return connection.execute(done).scalar_one()


def _open(connection: Connection) -> int:
    mine = schema.submissions.c.module == _MARKED_AGAIN
    where = mine, schema.submissions.c.status != course.CONFIRMED
    return connection.execute(select(func.count()).select_from(schema.submissions).where(*where)).scalar_one()


def _rounds(connection: Connection, module: str) -> dict[str, tuple[int, int]]:
    """Return how often each submission was submitted again, and how often it was corrected."""
    joined = schema.history.join(schema.submissions, schema.submissions.c.id == schema.history.c.submission)
    hops = select(schema.history.c.submission, schema.history.c.role, schema.history.c.status).select_from(joined)
    counted = Counter(
        (row[0], row[1], row[2]) for row in connection.execute(hops.where(schema.submissions.c.module == module))
    )
    ids = {submission for submission, _, _ in counted}
    return {one: (counted[one, "coordinator", "submitted"], counted[one, "demonstrator", "corrected"]) for one in ids}


def _until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + _WITHIN
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {_WITHIN:g} s")
        time.sleep(0.02)


def main() -> int:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=100_000)
    parser.add_argument("--module", type=int, default=1000, help="submissions of the module that is marked again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rabbitry-course-") as name:
        folder = Path(name)
        config = folder / "course.toml"
        tables = [
            f'[modules.{module}]\nshort = "m{number}"\n' for number, module in enumerate((*_MODULES, _MARKED_AGAIN))
        ]
        config.write_text("".join(tables))
        url = f"sqlite:///{folder / 'course.sqlite3'}"
        more = {"RABBITRY_DATABASE": url, "RABBITRY_GRADING": str(config)}
        more |= {"XDG_DATA_HOME": name, "XDG_CONFIG_HOME": name}
        with BrokerProcess("--data", str(folder / "broker"), anew=True) as broker, Database(url) as database:
            more["RABBITRY_BROKER"] = broker.url
            database.write_now(partial(_fill, submissions=given.submissions))
            files = Files(default_place(url))
            for number in range(1, given.module + 1):
                _confirm(database, files, number)
            port = free_port()
            with running(("web", "--port", str(port)), more):
                slowest = _measure_page(f"http://127.0.0.1:{port}/grading/", given.submissions)
            found = {
                "submissions": given.submissions,
                "slowest_ms": slowest,
                "slowest_ms_to_be_below": PAGE_TARGET,
                **_mark_again(database, given.module, more),
            }
    print(json.dumps(found), flush=True)
    return 0 if found["not_once"] == 0 == found["exit_code"] else 1


if __name__ == "__main__":
    sys.exit(main())
