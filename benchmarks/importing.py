"""CPU that importing the client costs beside importing asyncio alone."""

import os
import random
import resource
import statistics
import subprocess
import sys

_ROUNDS = 60
_PROGRAMS = {
    "an empty program": "pass",
    "import asyncio": "import asyncio",
    "from rabbitry import connect": "from rabbitry import connect",
    "import aio_pika": "import aio_pika",
    "import pika": "import pika",
}


def _milliseconds(code: str, environment: dict[str, str]) -> float:
    """Run a program in a process of its own and return its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


def main() -> int:
    """Measure the programs in turns and print the medians."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    taken: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    for code in _PROGRAMS.values():
        _milliseconds(code, environment)  # compiles what is not compiled yet
    for _ in range(_ROUNDS):
        # In another order each time: what ran before a program has left its files in the processor's caches.
        for name, code in random.sample(list(_PROGRAMS.items()), len(_PROGRAMS)):
            taken[name].append(_milliseconds(code, environment))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    print("| program | CPU, ms | of asyncio's |")
    print("|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.1f} | {median / medians['import asyncio']:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
