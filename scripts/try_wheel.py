"""Try the wheel installed in this Python's environment. `scripts/dist` calls it, outside the checkout.

Arguments: `client` (no extra is installed) or `programs` (all are).
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

_RABBITRY = Path(sys.prefix) / "bin/rabbitry"
_WITHIN = 120.0
_TEST = """
import rabbitry

def test_a_message_comes_back(rabbitry_broker):
    with rabbitry.connect_blocking(rabbitry_broker.url) as connection:
        channel = connection.channel()
        channel.declare_queue("tasks")
        channel.publish(b"work", routing_key="tasks")
        assert channel.get("tasks").body == b"work"
"""


class Failed(Exception):
    """The wheel does not work."""


def check(is_so: bool, what: str) -> None:
    """Raise Failed with `what` unless `is_so`."""
    if not is_so:
        raise Failed(what)


@contextlib.contextmanager
def service(folder: Path, pattern: str, *arguments: str) -> Iterator[str]:
    """Run a command of Rabbitry, yield the pattern's group in its output, and end it in order."""
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [_RABBITRY, *arguments], cwd=folder, env=os.environ | {"XDG_DATA_HOME": str(folder)}, stdout=file,
            stderr=file, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _WITHIN
        while (found := re.search(pattern, log.read_text())) is None:
            check(process.poll() is None and time.monotonic() < deadline, log.read_text())
            time.sleep(0.05)
        yield found[1]
        process.send_signal(signal.SIGTERM)
        check(process.wait(_WITHIN) == 0, log.read_text())
    finally:
        process.kill()
        process.wait()


def get(url: str) -> str:
    """Return the body of a page."""
    with urllib.request.urlopen(url, timeout=_WITHIN) as answer:  # noqa: S310 - of 127.0.0.1
        return str(answer.read().decode())


async def try_client() -> None:
    """Publish and receive a message over the embedded broker."""
    import rabbitry
    from rabbitry.broker import Broker

    check(Path(rabbitry.__file__).is_relative_to(sys.prefix), f"not the wheel: {rabbitry.__file__}")
    async with Broker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks")
        await channel.publish(b"work", routing_key="tasks")
        delivery = await channel.get("tasks")
        check(delivery is not None and delivery.body == b"work", "the message did not come back")


def try_programs(folder: Path) -> None:
    """Run broker, page and pytest plugin."""
    with service(folder, r"ready (\S+) http", "broker", "--memory", "--port", "0", "--management-port", "0") as url:
        with service(folder, r"(http://127\.0\.0\.1:\d+)", "web", "--port", "0", "--broker", url) as page:
            check("<title>Overview – Rabbitry</title>" in get(page), "the page has no title")
            for linked in re.findall(r'(?:src|href)="(/?[^":#]+)"', get(page)):
                get(urljoin(f"{page}/", linked))
            for app in ("grading", "crawl"):
                get(f"{page}/{app}/")
    (folder / "test_message.py").write_text(_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_message.py"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=_WITHIN)
    check(done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr)


def main() -> None:
    """Run the tries named by the argument; a failure shows as a traceback and exit code 1."""
    if sys.argv[1] == "client":
        asyncio.run(try_client())
        done = subprocess.run([_RABBITRY, "up"], capture_output=True, text=True, timeout=_WITHIN, check=False)
        check(done.returncode == 1 and "it comes with the extra 'all'" in done.stderr, done.stderr)
    else:
        with tempfile.TemporaryDirectory() as folder:
            try_programs(Path(folder))


if __name__ == "__main__":
    main()
