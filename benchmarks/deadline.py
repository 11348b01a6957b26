"""A deadline: all students of a course hand in within minutes, and a scheme marks each for seconds.

The embedded broker stores messages on disk, one process runs all roles with records in SQLite, another one serves the
page, which is asked for its overview twice a second. Students hand in at random times before the deadline, whether
earlier ones have been served or not; each wait counts from the scheduled time. A submission busies the CPU for the
scheme's seconds, in the sandbox.

Without options it is a short form; `make bench-grading` measures 1,000 students within five minutes, schemes of 2 s.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port

from rabbitry.apps.grading.modules import load_course
from rabbitry.apps.grading.records import Database, course
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter

P99_TARGET: Final = 50.0
PAGE_TARGET: Final = 200.0
_MODULE: Final = "cloud_computing"
_ASK_EVERY: Final = 0.5
_PATIENCE: Final = 3.0
"""Times that marking may take longer than its CPU, before the benchmark gives up."""
_SCHEME: Final = """
[scheme]
name = "Busy"
file = "busy.py"
[[part]]
name = "runs"
points = 1
command = ["python3", "busy.py"]
expect = {{ exact = "done" }}
limits = {{ cpu_seconds = {limit}, wall_seconds = {limit} }}
"""
_BUSY: Final = """# student {student}
import time
while time.process_time() < {seconds}:
    pass
print("done")
"""


@dataclass(frozen=True)
class Load:
    """What is measured: so many students hand in within so many minutes; marking takes so many seconds of CPU."""

    students: int
    minutes: float
    seconds: float

    @property
    def patience(self) -> float:
        """Seconds until all must be confirmed."""
        return 120 + self.minutes * 60 + _PATIENCE * self.students * (self.seconds + 0.5)


@contextlib.contextmanager
def running(arguments: Sequence[str], more: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends."""
    command = [sys.executable, "-m", "rabbitry", *arguments]
    with subprocess.Popen(command, env=os.environ | more, stdout=sys.stderr) as process:
        try:
            yield process
        finally:
            process.terminate()


async def _ask(page: httpx.AsyncClient, took: list[float], failed: list[str]) -> None:
    """Ask for the page's overview until cancelled."""
    while True:
        began = time.perf_counter()
        try:
            (await page.get("api/overview")).raise_for_status()
        except httpx.HTTPError as error:
            failed.append(repr(error))
        took.append(time.perf_counter() - began)
        await asyncio.sleep(_ASK_EVERY)


async def _is_there(page: httpx.AsyncClient) -> None:
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await page.get("api/overview")).is_success:
                    return
            await asyncio.sleep(0.2)


async def _hand_in(load: Load, wiring: Wiring, url: str, waited: list[float]) -> list[str]:
    """Hand in for all students; return the ids in the order of the scheduled times."""
    module = wiring.course.module(_MODULE)
    chance = random.Random(1)
    moments = sorted(chance.uniform(0, load.minutes * 60) for _ in range(load.students))
    async with Submitter(wiring, url) as submitter:
        await submitter.submit(1, module, _BUSY.format(student=1, seconds=0).encode(), "busy.py")
        began = time.perf_counter()

        async def one(student: int, moment: float) -> str:
            await asyncio.sleep(began + moment - time.perf_counter())
            data = _BUSY.format(student=student, seconds=load.seconds).encode()
            identity = await submitter.submit(student, module, data, "busy.py")
            waited.append(time.perf_counter() - began - moment)
            return identity

        return await asyncio.gather(*(one(1000 + number, moment) for number, moment in enumerate(moments)))


async def _all_confirmed(database: Database, number: int, roles: int, patience: float) -> None:
    async with asyncio.timeout(patience):
        while (await database.read(course.counts)).get("confirmed", 0) < number:
            if psutil.Process(roles).status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("the roles ended")
            await asyncio.sleep(0.5)


def _cpu(process: int) -> float:
    """Return the seconds of CPU that a process has used, its children left out."""
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


async def _measure(
    load: Load, wiring: Wiring, url: str, page_url: str, roles: int, database: Database
) -> dict[str, object]:
    waited: list[float] = []
    took: list[float] = []
    failed: list[str] = []
    async with httpx.AsyncClient(base_url=page_url, timeout=30) as page:
        await _is_there(page)
        began, used = time.perf_counter(), _cpu(roles)
        asking = asyncio.create_task(_ask(page, took, failed))
        ids = await _hand_in(load, wiring, url, waited)
        await _all_confirmed(database, load.students + 1, roles, load.patience)
        seconds, used = time.perf_counter() - began, _cpu(roles) - used
        asking.cancel()
    rows = await database.read(course.submissions_of)
    marked = {row.id for row in rows if row.status == "confirmed" and row.mark == 1.0}
    order = {row.id: place for place, row in enumerate(sorted(rows, key=lambda row: row.updated_at))}
    shifts = sorted(abs(order[identity] - place - 1) for place, identity in enumerate(ids))
    return {
        "students": load.students,
        "minutes": load.minutes,
        "scheme_cpu_seconds": load.seconds,
        "seconds": round(seconds, 1),
        # Of the roles' process alone: messaging, records, and the handling of the sandbox, not what is marked in it.
        "roles_cpu_ms_per_submission": round(1000 * used / load.students, 2),
        "lost": len(set(ids) - marked),
        **_percentiles("acknowledged", waited),
        "acknowledged_p99_ms_to_be_below": P99_TARGET,
        **_percentiles("page", took),
        "page_p99_ms_to_be_below": PAGE_TARGET,
        "page_failed": len(failed),
        # How many places a student moved between handing in and confirmation.
        "order_moved_p95": shifts[len(shifts) * 95 // 100],
        "order_moved_most": shifts[-1],
    }


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"{name}_p{percent}_ms": round(1000 * ordered[min(len(ordered) * percent // 100, len(ordered) - 1)], 2)
        for percent in (50, 99)
    }


def main() -> int:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of CPU that marking takes")
    given = parser.parse_args()
    load = Load(given.students, given.minutes, given.seconds)
    with tempfile.TemporaryDirectory(prefix="rabbitry-deadline-") as name:
        folder = Path(name)
        (folder / "scheme.toml").write_text(_SCHEME.format(limit=30 + 10 * int(load.seconds)))
        config = folder / "course.toml"
        config.write_text(f'[modules.{_MODULE}]\nshort = "cc"\nscheme = "scheme.toml"\n')
        with BrokerProcess("--data", str(folder / "broker"), anew=True) as broker:
            url = f"sqlite:///{folder / 'course.sqlite3'}"
            port = free_port()
            more = {"RABBITRY_BROKER": broker.url, "RABBITRY_DATABASE": url, "RABBITRY_GRADING": str(config)}
            more |= {"XDG_DATA_HOME": name, "XDG_CONFIG_HOME": name}
            run = ("grading", "run", "--log-level", "warning")
            with Database(url) as database, running(run, more) as roles, running(("web", "--port", str(port)), more):
                page = f"http://127.0.0.1:{port}/grading/"
                wiring = Wiring(load_course(config))
                found = asyncio.run(_measure(load, wiring, broker.url, page, roles.pid, database))
                print(json.dumps(found), flush=True)
    return 0 if found["lost"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
