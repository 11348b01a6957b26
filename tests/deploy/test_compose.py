"""compose.yaml: what the specification asks for, what the roles need, and no secret in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry.apps.grading.commands.roles import DEADLINE
from rabbitry.runtime.service import GRACE
from tests.deploy.files import DEPLOY, Service, compose, copy_with_secrets

SERVICES = list(compose()["services"])
OURS = [name for name in SERVICES if name != "rabbitmq"]


def _check(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_it_fits_the_specification_s_schema(tmp_path: Path) -> None:
    done = _check(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("restart:", "restarts:", 1))
    assert _check(wrong).returncode == 1


def test_every_role_is_a_service() -> None:
    assert SERVICES == [
        "rabbitmq",
        "demonstrator_cc",
        "demonstrator_dm",
        "teaching_assistant",
        "module_coordinator",
        "student",
        "monitor",
        "web",
    ]


def test_all_are_on_one_bridge_network() -> None:
    assert compose()["networks"] == {"rabbitry": {"driver": "bridge"}}
    assert [service["networks"] for service in compose()["services"].values()] == [["rabbitry"]] * len(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_again(name: str) -> None:
    assert compose()["services"][name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_fills_no_disk_with_its_log_and_gets_no_new_rights(name: str) -> None:
    service = compose()["services"][name]
    assert service["logging"] == {"driver": "local"}
    assert "no-new-privileges:true" in service["security_opt"]


def test_all_have_more_time_to_end_than_they_take() -> None:
    grace = {name: int(compose()["services"][name]["stop_grace_period"].removesuffix("s")) for name in SERVICES}
    assert grace.pop("rabbitmq") >= 60
    assert min(grace.values()) >= DEADLINE + 5 * GRACE


@pytest.mark.parametrize("name", OURS)
def test_ours_start_when_the_broker_is_healthy_without_rights_that_they_do_not_need(name: str) -> None:
    service = compose()["services"][name]
    assert service["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}
    assert service["image"] == "rabbitry"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"][0] == "no-new-privileges:true"


def test_demonstrators_alone_may_make_namespaces() -> None:
    may = [name for name in OURS if "seccomp=unconfined" in compose()["services"][name]["security_opt"]]
    assert may == ["demonstrator_cc", "demonstrator_dm"]


def test_the_broker_says_when_it_is_healthy() -> None:
    broker = compose()["services"]["rabbitmq"]
    assert re.fullmatch(r"rabbitmq:.*-management", broker["image"])
    assert broker["healthcheck"]["test"][0] == "CMD"


def test_ports_are_this_machine_s_own() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5672:5672", "127.0.0.1:15672:15672", "127.0.0.1:8003:8003"]


def test_secrets_are_in_files_and_nowhere_else(tmp_path: Path) -> None:
    deploy = copy_with_secrets(tmp_path)
    assert (deploy / "secrets").stat().st_mode & 0o777 == 0o700
    login = dict(re.findall(r"^(\w+) = (\w+)$", (deploy / "secrets/rabbitmq.conf").read_text(), re.MULTILINE))
    environment = Service("web", deploy).environment
    assert environment["RABBITRY_BROKER"] == f"amqp://rabbitry:{login['default_pass']}@rabbitmq:5672/"
    assert login["default_user"] == "rabbitry"
    assert len({login["default_pass"], environment["APP_PASSWORD"]}) == 2
    assert min(len(login["default_pass"]), len(environment["APP_PASSWORD"])) == 48
    assert "APP_PASSWORD" not in Service("demonstrator_cc", deploy).environment
    text = (deploy / "compose.yaml").read_text()
    assert login["default_pass"] not in text
    assert re.findall(r"://[^/\s]*:[^/\s]*@", text) == []


def test_secrets_are_made_once_and_not_shown(tmp_path: Path) -> None:
    deploy = copy_with_secrets(tmp_path)
    before = {file.name: file.read_text() for file in (deploy / "secrets").iterdir()}
    again = subprocess.run([deploy / "make-secrets"], capture_output=True, text=True, timeout=90, check=False)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert {file.name: file.read_text() for file in (deploy / "secrets").iterdir()} == before
    (deploy / "secrets").rename(deploy / "old")
    anew = subprocess.run([deploy / "make-secrets"], capture_output=True, text=True, timeout=90, check=True)
    made = (deploy / "secrets/web.env").read_text()
    assert made != before["web.env"]
    assert made.strip().partition("=")[2] not in anew.stdout + anew.stderr


def test_every_file_that_is_named_is_there(tmp_path: Path) -> None:
    deploy = copy_with_secrets(tmp_path)
    folders = [mount for name in SERVICES for mount in Service(name, deploy).mounts if not mount.volume]
    assert folders
    named = [mount.source for mount in folders] + [secret["file"] for secret in compose()["secrets"].values()]
    named += [file for name in OURS for file in compose()["services"][name]["env_file"]]
    assert [name for name in named if not (deploy / name).exists()] == []


def test_every_volume_that_is_named_is_declared() -> None:
    named = {mount.source for name in SERVICES for mount in Service(name, DEPLOY).mounts if mount.volume}
    assert named == set(compose()["volumes"])
