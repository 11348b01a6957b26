"""Each extra alone brings what its commands need, and a command that lacks something names its own extra.

The packages of the other extras are hidden from the import system; what each extra brings is read from the metadata of
the installed packages. `make dist` installs the wheel itself.
"""

import contextlib
import functools
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rabbitry._installing import extra_of
from rabbitry.testing import RunningBroker
from tests.support.commands import Service, environment
from tests.support.waiting import eventually_blocking

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
_EXTRAS: dict[str, list[str]] = _PROJECT["optional-dependencies"]
_PARTS = {"http", "records"}
"""Extras that no command names: other extras do, and joins of flow."""
_OF_APPS = {"cron", "notebooks", "oidc", "otel", "prometheus", "redis", "s3"}
"""Extras that no command names: the apps that users write need them, or settings do."""
_TEST = "test"
"""The extra for tests of other projects: no command needs it."""

_HIDE = """
import sys
from importlib.machinery import PathFinder

hidden = frozenset({hidden!r})

class OthersHidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [OthersHidden if finder is PathFinder else finder for finder in sys.meta_path]
"""
_COMMAND = "from rabbitry.cli import main; main(sys.argv[1:])"


def _own(extra: str) -> list[Requirement]:
    return [Requirement(text) for text in [*_PROJECT["dependencies"], *_EXTRAS.get(extra, [])]]


def _brought(extra: str) -> set[str]:
    """Return the names of the packages that come with Rabbitry and an extra ("": none)."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in _own(extra)]
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of}):
            continue
        name = canonicalize_name(requirement.name)
        for part in requirement.extras or {""}:
            if (name, part) in found:
                continue
            found.add((name, part))
            if name == "rabbitry":
                waiting += [(needed, "") for needed in _own(part)]
                continue
            with contextlib.suppress(PackageNotFoundError):  # of another platform or Python
                needs = [Requirement(text) for text in requires(name) or []]
                waiting += [(needed, each) for needed in needs for each in {part, ""}]
    return {name for name, _ in found}


@functools.cache
def _installed() -> dict[str, set[str]]:
    """Return the packages that each importable name comes from."""
    found = packages_distributions().items()
    return {module: {canonicalize_name(name) for name in names} for module, names in found}


def _program(extra: str, then: str) -> list[str]:
    """Return the command line of a Python that finds what an extra brings and no other installed package."""
    brought = _brought(extra) | {"rabbitry"}
    hidden = [module for module, names in _installed().items() if not brought & names and not module.startswith("_")]
    return [sys.executable, "-c", _HIDE.format(hidden=sorted(hidden)) + then]


def _run(extra: str, then: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_program(extra, then), *arguments], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def _service(folder: Path, extra: str, *arguments: str) -> Iterator[Service]:
    """Start a command that must end in order when it is told to."""
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*_program(extra, _COMMAND), *arguments], env=environment({"XDG_DATA_HOME": str(folder)}), cwd=folder,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield Service(process, str(output))
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, output.read_text()
        assert "Traceback" not in output.read_text()
    finally:
        process.kill()
        process.wait()


_CLIENT = """
import asyncio
import rabbitry
from rabbitry.broker import Broker

app = rabbitry.App("orders")

async def main():
    async with Broker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks", durable=True)
        await channel.publish(b"work", routing_key="tasks")
        delivery = await channel.get("tasks")
        print(delivery.body.decode())

asyncio.run(main())
"""


def test_client_flow_and_embedded_broker_need_no_extra() -> None:
    done = _run("", _CLIENT)
    assert (done.returncode, done.stdout) == (0, "work\n"), done.stderr


def test_the_extra_cli_runs_the_commands_without_an_app() -> None:
    with RunningBroker() as broker:
        done = _run("cli", _COMMAND, "workqueue", "produce", "--count", "3", "--broker", broker.url)
        assert done.returncode == 0, done.stderr
    # What the other commands import when they are used.
    done = _run(
        "cli", "from rabbitry.cli import dead, doctor, listings, topology, worker; import httpx, rich, websockets"
    )
    assert done.returncode == 0, done.stderr


def test_the_extra_broker_runs_the_broker(tmp_path: Path) -> None:
    with _service(tmp_path, "broker", "broker", "--memory", "--port", "0", "--management-port", "0") as service:
        ready = service.wait_for(r"rabbitry broker ready \S+ (http://\S+)")
        answer = httpx.get(f"{ready[1]}api/overview", auth=("guest", "guest"), timeout=60)
        assert answer.json()["product_name"] == "RabbitMQ"


def test_the_extra_monitor_runs_the_agent(tmp_path: Path) -> None:
    with (
        RunningBroker() as broker,
        _service(tmp_path, "monitor", "monitor", "publish", "--http", "0", "--broker", broker.url) as service,
    ):
        address = service.wait_for(r"http://127\.0\.0\.1:\d+")[0]
        answer = httpx.get(f"{address}/publish", timeout=60)
        assert "cpu" in answer.json()["data"]


def test_the_extra_web_serves_the_page(tmp_path: Path) -> None:
    with RunningBroker() as broker, _service(tmp_path, "web", "web", "--port", "0", "--broker", broker.url) as service:
        address = service.wait_for(r"http://127\.0\.0\.1:\d+")[0]
        assert "<title>Overview – Rabbitry</title>" in httpx.get(address, timeout=60).text
        for page in ("grading", "crawl"):
            assert httpx.get(f"{address}/{page}/", timeout=60).status_code == 200


@pytest.mark.parametrize("extra", ["grading", "crawl"])
def test_the_extras_of_roles_run_them(extra: str, tmp_path: Path) -> None:
    with RunningBroker() as broker, _service(tmp_path, extra, extra, "run", "--broker", broker.url) as service:
        consumers = f"{broker.management_url}api/consumers"

        def consumes() -> bool:
            assert service.process.poll() is None, service.output
            answer = httpx.get(consumers, auth=("guest", "guest"), timeout=60).raise_for_status()
            return len(answer.json()) > 0

        eventually_blocking(consumes, "a consumer")


@pytest.mark.parametrize("command", ["up", "web", "worker"])
def test_without_an_extra_each_command_names_its_own(command: str) -> None:
    done = _run("", _COMMAND, command, "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"rabbitry: the command line needs 'typer', which is not installed; it comes with the extra "
        rf"'{extra_of(command)}': .*\[{extra_of(command)}\].*\n",
        done.stderr,
    )


def test_a_command_that_lacks_a_package_names_its_own_extra() -> None:
    done = _run("cli", _COMMAND, "web", "--port", "0")
    assert done.returncode == 1
    assert re.match(
        r"rabbitry: `rabbitry web` needs '\w+', which is not installed; it comes with the extra 'web': ", done.stderr
    )


_PROVIDER = """
from rabbitry.exceptions import UsageError
from rabbitry.web.login.gate import Access, Login
from rabbitry.web.login.oidc.settings import Provider

provider = Provider(issuer="https://id.example.org", client_id="rabbitry", address="https://course.example.org/")
try:
    print(Login(Access(provider=provider)).provider_title)
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("extra", "printed"), [("oidc", "single sign-on\n"), ("web", "it comes with the extra 'oidc'")]
)
def test_the_extra_oidc_brings_what_a_provider_needs(extra: str, printed: str) -> None:
    done = _run(extra, _PROVIDER)
    assert (done.returncode, printed in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_extra_all_has_every_other_extra() -> None:
    [everything] = [Requirement(text) for text in _EXTRAS["all"]]
    assert everything.name == "rabbitry"
    assert everything.extras == set(_EXTRAS) - _PARTS - {"all", _TEST}


def test_each_extra_that_a_command_names_exists() -> None:
    commands = ("broker", "monitor", "grading", "crawl", "web", "up", "worker")
    assert {extra_of(command) for command in commands} == set(_EXTRAS) - _PARTS - _OF_APPS - {_TEST}
