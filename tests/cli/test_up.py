"""`rabbitry up`: everything starts, everything ends, and what dies comes back."""

import json
import re
import signal
import tomllib
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from rabbitry.apps.crawl import hosting
from rabbitry.cli import _up_apps
from rabbitry.exceptions import UsageError
from tests.support import commands, logs
from tests.support.commands import Service
from tests.support.embedded import BrokerProcess
from tests.support.forking import EXECUTED
from tests.support.processes import children_of, is_gone
from tests.support.waiting import eventually_blocking

_FREE = ("--port", "0", "--web-port", "0", "--http-port", "0", "--management-port", "0")
_SECRET = "a-secret-that-shows-nowhere"


def _page(up: Service) -> str:
    return up.wait_for(r"live: (http://\S+/)")[1]


def _health(page: str) -> dict[str, object]:
    known: dict[str, object] = httpx.get(f"{page}healthz", timeout=60).json()
    return known


def _children(up: Service) -> dict[str, psutil.Process]:
    return children_of(up.process.pid)


def _all_gone(children: list[psutil.Process]) -> bool:
    return all(is_gone(child) for child in children)


def test_up_starts_everything_and_ctrl_c_ends_everything() -> None:
    with commands.service("up", *_FREE, more=EXECUTED) as up:
        page = _page(up)
        eventually_blocking(lambda: _health(page)["samples"], "samples")
        eventually_blocking(lambda: {"crawl", "grading"} <= {*_children(up)}, "the roles")
        children = _children(up)
        assert sorted(children) == ["broker", "crawl", "grading", "monitor", "web"]
        agent = children["monitor"].cmdline()
        assert agent[agent.index("--http") + 1] == "0", "a number that was found for it could be taken by now"
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(90) == 0, up.output
        assert _all_gone(list(children.values()))
        assert "Traceback" not in up.output
        assert "killed" not in up.output


def test_the_dashboard_finds_the_broker_s_management_api_on_any_port() -> None:
    with commands.service("up", *_FREE, "--apps", "monitor") as up:
        feed = _page(up).replace("http:", "ws:") + "feed"
        with connect(feed, proxy=None) as socket:
            socket.send('{"open": 1, "topic": "broker"}')
            socket.send('{"open": 2, "topic": "queues"}')
            seen: set[int] = set()  # a part tells only what has changed
            while seen != {1, 2}:
                for part in json.loads(socket.recv(timeout=90)).get("parts", []):
                    totals = (part.get("value") or part.get("set") or {}).get("totals", {})
                    if totals.get("queues") if part["id"] == 1 else part.get("total"):
                        seen.add(part["id"])


def test_children_end_when_up_is_killed() -> None:
    with commands.service("up", *_FREE, "--apps", "monitor") as up:
        _page(up)
        children = list(_children(up).values())
        up.process.kill()
        up.process.wait()
        eventually_blocking(lambda: _all_gone(children), "the end of the children")


@pytest.mark.parametrize("name", ["broker", "monitor", "web"])
def test_a_dead_child_is_restarted(name: str) -> None:
    with commands.service("up", *_FREE, "--apps", "monitor") as up:
        page = _page(up)
        eventually_blocking(lambda: _health(page)["samples"], "samples")
        victim = _children(up)[name]
        victim.kill()
        up.wait_for(r"ended with signal 9; started again")

        def again() -> bool:
            child = _children(up).get(name)
            return child is not None and child.pid != victim.pid

        eventually_blocking(again, "another one")

        def samples() -> int:
            try:
                known = _health(page)
            except httpx.HTTPError:
                return 0
            return int(str(known["samples"])) if known["broker"] == "connected" else 0

        before = samples()
        eventually_blocking(lambda: samples() > before, "new samples")
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


def test_up_uses_a_given_broker_and_shows_no_password() -> None:
    with BrokerProcess() as broker:
        url = broker.url.replace("guest:guest", f"guest:{_SECRET}")
        with commands.service("up", *_FREE, more={"RABBITRY_BROKER": url}) as up:
            assert up.process.wait(90) == 3
            assert "refused the login of user 'guest'" in up.output
            assert _SECRET not in up.output
        with commands.service("up", *_FREE, more=EXECUTED | {"RABBITRY_BROKER": broker.url}) as up:
            page = _page(up)
            eventually_blocking(lambda: _health(page)["samples"], "samples")
            assert sorted(_children(up)) == ["monitor", "web"]
            assert not [word for child in _children(up).values() for word in child.cmdline() if "guest" in word]


def test_a_submission_is_confirmed_by_the_roles_of_up(tmp_path: Path) -> None:
    solution = tmp_path / "solution.py"
    solution.write_text("print(42)\n")
    database = {"RABBITRY_DATABASE": f"sqlite:///{tmp_path / 'records.sqlite3'}"}
    with commands.service("up", *_FREE, "--apps", "grading", "--person", "assistant", more=database) as up:
        url = up.wait_for(r"broker on (amqp://\S+/)")[1]
        handed_in = commands.run(
            "grading", "submit", str(solution), "--student", "7", "--module", "data_mining", "--broker", url
        )
        assert handed_in.returncode == 0, handed_in.stderr
        identity = handed_in.stdout.split()[-1]

        def status() -> str:
            return commands.run("grading", "status", identity, "--broker", url).stdout

        # Refused until it has come to the assistant's inbox.
        def decided() -> bool:
            return commands.run("grading", "inbox", "decide", identity, more=database).returncode == 0

        eventually_blocking(decided, "the demonstrator")
        eventually_blocking(lambda: "confirmed" in status(), "the coordinator")


def test_roles_run_only_on_the_broker_of_up() -> None:
    done = commands.run("up", *_FREE, "--broker", "amqp://127.0.0.1:1/", "--person", "assistant")
    assert done.returncode == 2
    assert "rabbitry grading run --person" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_of_another_broker_is_reported_with_advice() -> None:
    with BrokerProcess() as broker:
        done = commands.run("up", "--port", str(broker.port), "--web-port", "0", "--http-port", "0")
        assert done.returncode == 2
        assert f"port {broker.port} is taken" in done.stderr
        assert str(broker.pid) in done.stderr
        assert "an AMQP broker answers there" in done.stderr
        assert "--broker" in done.stderr
        assert "--port 0" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_second_ctrl_c_ends_at_once() -> None:
    with commands.service("up", *_FREE, "--apps", "monitor") as up:
        _page(up)
        children = _children(up)
        children["web"].suspend()  # it can't end in order, so the first signal takes its time
        up.process.send_signal(signal.SIGINT)
        up.wait_for("stopping")
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(90) == 130
        children["web"].resume()
        eventually_blocking(lambda: _all_gone(list(children.values())), "the end of the children")


def test_a_crawl_needs_the_packages_of_its_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["crawl"]
    # Other extras of Rabbitry itself are no modules to look for.
    needed = [re.split(r"[><=]", line)[0].replace("-", "_") for line in extra if not line.startswith("rabbitry[")]
    assert needed == [*hosting.MODULES]


def _running(apps: str | None) -> list[str]:
    """Return the apps with processes that `rabbitry up` runs."""
    chosen = _up_apps.wanted(apps, has_broker=False)
    brought = _up_apps.services(chosen, {}, plain=False, strict=False, free_port=lambda given, usual, option: usual)
    return [name for name, services in brought.items() if services.children]


def test_without_its_extra_a_crawl_is_left_out_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosting, "find_spec", lambda name: None if name == "pycurl" else find_spec(name))
    caplog.set_level("INFO", logger="rabbitry")
    assert _running(None) == ["monitor", "grading"]
    (line,) = logs.messages(caplog)
    assert "'pycurl', which is not installed" in line
    assert "install" in line.rpartition(": ")[2]
    assert _running("monitor") == ["monitor"]
    with pytest.raises(UsageError, match=r"--apps crawl: .*'pycurl', which is not installed"):
        _running("crawl,monitor")
    assert len(logs.messages(caplog)) == 1
