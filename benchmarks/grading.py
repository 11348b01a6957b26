"""The cost of an assignment: CPU of messaging and records, and a student's wait for the acknowledgement.

The embedded broker stores messages on disk, one process runs all roles without people and with records in SQLite, and
students submit at a steady rate, whether earlier ones have been served or not; each wait counts from the scheduled
time. The module has no marking scheme, so that no sandbox is measured.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
from tests.support.embedded import BrokerProcess

from rabbitry.apps.grading.message import user_name
from rabbitry.apps.grading.records import Database, course
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter

COUNT: Final = 10_000
PER_SECOND: Final = 250
FILE: Final = b"print('hello')\n" * 20
CPU_TARGET: Final = 5.0
P99_TARGET: Final = 20.0
_DEADLINE: Final = 600.0


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _hand_in(submitter: Submitter, number: int, turn: float, waited: list[float]) -> None:
    module = Wiring().course.module("cloud_computing")
    await submitter.submit(number, module, FILE, "solution.py", who=user_name())
    waited.append(time.perf_counter() - turn)


async def _students(submitter: Submitter, numbers: range, waited: list[float]) -> None:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as students:
        for n, number in enumerate(numbers):
            turn = began + n / PER_SECOND
            await asyncio.sleep(turn - time.perf_counter())
            students.create_task(_hand_in(submitter, number, turn, waited))


async def _confirmed(database: Database, number: int, roles: int) -> None:
    async with asyncio.timeout(_DEADLINE):
        while psutil.Process(roles).status() != psutil.STATUS_ZOMBIE:
            if (await database.read(course.counts)).get("confirmed", 0) >= number:
                return
            await asyncio.sleep(0.1)
    raise RuntimeError("the roles ended")


async def _measure(broker: BrokerProcess, roles: int, database: Database) -> dict[str, object]:
    waited: list[float] = []
    async with Submitter(Wiring(), broker.url) as submitter:
        await _students(submitter, range(1, 51), [])  # connections, queues, caches
        await _confirmed(database, 50, roles)
        before = {name: _cpu(pid) for name, pid in _processes(broker, roles)}
        began = time.perf_counter()
        await _students(submitter, range(100, 100 + COUNT), waited)
        await _confirmed(database, COUNT + 50, roles)
        seconds = time.perf_counter() - began
    spent = {name: _cpu(pid) - before[name] for name, pid in _processes(broker, roles)}
    waited.sort()
    return {
        "assignments": COUNT,
        "handed_in_per_second": PER_SECOND,
        "seconds": round(seconds, 1),
        "cpu_ms_each": {name: round(1000 * cpu / COUNT, 2) for name, cpu in spent.items()},
        "cpu_ms_each_in_all": round(1000 * sum(spent.values()) / COUNT, 2),
        "cpu_ms_to_be_below": CPU_TARGET,
        "acknowledged_p50_ms": round(1000 * waited[len(waited) // 2], 2),
        "acknowledged_p99_ms": round(1000 * waited[len(waited) * 99 // 100], 2),
        "acknowledged_p99_ms_to_be_below": P99_TARGET,
    }


def _processes(broker: BrokerProcess, roles: int) -> list[tuple[str, int]]:
    return [("student", os.getpid()), ("roles", roles), ("broker", broker.pid)]


def main() -> int:
    """Measure and print one JSON line."""
    with tempfile.TemporaryDirectory(prefix="rabbitry-grading-") as name:
        folder = Path(name)
        with BrokerProcess("--data", str(folder / "broker"), anew=True) as broker:
            url = f"sqlite:///{folder / 'course.sqlite3'}"
            more = {"RABBITRY_BROKER": broker.url, "RABBITRY_DATABASE": url, "XDG_CONFIG_HOME": name}
            command = [sys.executable, "-m", "rabbitry", "grading", "run", "--log-level", "warning"]
            with subprocess.Popen(command, env=os.environ | more) as roles, Database(url) as database:
                try:
                    print(json.dumps(asyncio.run(_measure(broker, roles.pid, database))), flush=True)
                finally:
                    roles.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
