"""All services of compose.yaml by their command lines as they stand, each in a network namespace of its own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.deploy import containers, networks
from tests.deploy.containers import Container, Containers
from tests.deploy.files import Service, compose, copy_with_secrets, documented, instruction
from tests.deploy.networks import Namespace, Network
from tests.support import programs, rabbitmq
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually_blocking

pytestmark = pytest.mark.timeout(300)
_WITHIN = 90.0
_EXEC = "docker compose exec student"
_OUT_OF = {"cloud_computing": 6, "data_mining": 3}
OURS = [name for name in compose()["services"] if name != "rabbitmq"]


class Deployment:
    """The services, as they run."""

    def __init__(self, deploy: Path, folder: Path, network: Network) -> None:
        self._deploy = deploy
        self.outside = network.outside
        self.containers = Containers(deploy, folder)
        self.places: dict[str, tuple[Namespace, str]] = {name: network.join() for name in OURS}
        self.running: dict[str, Container] = {}

    def service(self, name: str) -> Service:
        """A service as compose.yaml describes it."""
        return Service(name, self._deploy)

    def run(self, name: str, command: list[str]) -> Container:
        """Run a command in a service's namespace, with what the service has."""
        return self.containers.start(self.service(name), self.places[name][0], command)

    def start(self) -> None:
        """Start every service by the image's entry point and its own command."""
        for name in OURS:
            self.running[name] = self.run(name, json.loads(instruction("ENTRYPOINT")) + self.service(name).command)

    def done(self, name: str, command: list[str]) -> str:
        """Run a command to its end as `docker compose exec` does, and give what it printed."""
        container = self.run(name, command)
        try:
            code = container.wait(_WITHIN)
        finally:
            container.kill()
        assert code == 0, f"{command}: {code}\n{container.output}"
        return container.output

    def stop(self) -> dict[str, int]:
        """Stop all services; gives their exit codes."""
        return {name: container.stop(_WITHIN) for name, container in self.running.items()}

    def kill(self) -> None:
        """End what still runs."""
        for container in self.running.values():
            container.kill()


class Broker:
    """RabbitMQ in a namespace of its own, with the login of its secret. A context manager."""

    def __init__(self, network: Network, deploy: Path) -> None:
        self._namespace, self.address = network.join()
        login = (deploy / compose()["secrets"]["rabbitmq_login"]["file"]).read_text().splitlines()
        self._server = RabbitMQ(is_thrifty=True, settings=["listeners.tcp.2 = 0.0.0.0:5672", *login])

    def __enter__(self) -> "Broker":
        with self._namespace.entered():
            self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def check_health(self) -> None:
        """Run the service's health check. Raises CalledProcessError."""
        kind, tool, *arguments = compose()["services"]["rabbitmq"]["healthcheck"]["test"]
        assert kind == "CMD"
        with self._namespace.entered():
            self._server.ctl(*arguments, tool=tool)

    def has_reader_of_results(self) -> bool:
        """Whether a queue is bound for results, which go nowhere before."""
        exchange = 'rabbit_misc:r(<<"/">>, exchange, <<"assignment_exchange">>)'
        bound = f'lists:keymember(<<"results">>, 3, rabbit_binding:list_for_source({exchange})).'
        with self._namespace.entered():
            return self._server.eval(bound) == "true"


def _why_no_marking(deployment: Deployment) -> str | None:
    """Why a demonstrator's container can't run submissions on this machine, or None when it can."""
    trial = "from rabbitry.apps.grading.marking._bubblewrap import bubblewrap; bubblewrap()"
    container = deployment.run("demonstrator_cc", ["python", "-c", trial])
    try:
        code = container.wait(_WITHIN)
    finally:
        container.kill()
    return None if code == 0 else container.output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """All services, started once the broker is healthy; at the end all stop by themselves when they are told to."""
    programs.require(rabbitmq.why_missing() or networks.why_missing() or containers.why_missing())
    folder = tmp_path_factory.mktemp("containers")
    deploy = copy_with_secrets(folder)
    with Network() as network, Broker(network, deploy) as broker:
        made = Deployment(deploy, folder, network)
        made.containers.name("rabbitmq", broker.address)
        for name, (_, address) in made.places.items():
            made.containers.name(name, address)
        programs.require(_why_no_marking(made))
        broker.check_health()
        try:
            made.start()
            made.running["web"].wait_for("broker connected", within=_WITHIN)
            eventually_blocking(broker.has_reader_of_results, "the student's queue", within=_WITHIN)
            yield made
            # One that follows something ends as services do.
            assert made.stop() == dict.fromkeys(OURS, 0)
        finally:
            made.kill()


def _overview(deployment: Deployment) -> dict[str, Any]:
    """What the page shows of the course, asked for at its address on the bridge with the password of its secret."""
    login = ("", deployment.service("web").environment["APP_PASSWORD"])
    with deployment.outside.entered():
        answer = httpx.get(f"http://{deployment.places['web'][1]}:8003/grading/api/overview", auth=login, timeout=90)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


SUBMITS = documented(f"{_EXEC} rabbitry grading submit")


def test_the_documentation_hands_in_for_every_module() -> None:
    assert [words[-1] for words in SUBMITS] == list(_OUT_OF)


@pytest.mark.parametrize("command", SUBMITS, ids=lambda words: str(words[-1]))
def test_what_a_student_hands_in_is_confirmed(deployment: Deployment, command: list[str]) -> None:
    identity = deployment.done("student", ["rabbitry", "grading", "submit", *command]).strip()
    [[_, *options]] = documented(f"{_EXEC} rabbitry grading status")
    status = deployment.done("student", ["rabbitry", "grading", "status", identity, *options])
    total = _OUT_OF[command[-1]]
    assert re.search(rf"corrected +by demonstrator .* {total} of {total} ", status), status
    assert re.search(r"validated +by assistant ", status), status
    assert re.search(r"confirmed +by coordinator ", status), status
    deployment.running["student"].wait_for(identity, within=_WITHIN)
    shown = _overview(deployment)["submissions"]
    assert [one["status"] for one in shown if one["id"] == identity] == ["confirmed"]


def test_the_page_is_healthy_by_its_own_check(deployment: Deployment) -> None:
    kind, *command = deployment.service("web").fields["healthcheck"]["test"]
    assert kind == "CMD"
    deployment.done("web", command)
    for name in OURS:
        assert deployment.running[name].is_running(), deployment.running[name].output


def test_the_monitor_is_on_the_page(deployment: Deployment, chromium: Path) -> None:
    page_url = f"http://{deployment.places['web'][1]}:8003/"
    password = deployment.service("web").environment["APP_PASSWORD"]
    with deployment.outside.entered(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=programs.CHROMIUM_FLAGS)
        page = browser.new_page()
        page.goto(page_url, timeout=_WITHIN * 1000)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        card = page.locator(".card[data-host='monitor']")
        expect(card.locator(".figures")).to_contain_text("CPU", timeout=_WITHIN * 1000)
        card.get_by_text("Raw JSON").click()
        expect(card.locator("pre.raw")).to_contain_text('"eth0"', timeout=_WITHIN * 1000)  # of its own network
        browser.close()
