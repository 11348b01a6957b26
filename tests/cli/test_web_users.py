"""`rabbitry web users`, and a dashboard that takes the changes."""

import json
from pathlib import Path

import httpx
import msgspec

from rabbitry.apps import AppRole
from rabbitry.apps.users_file import changed_users, read_users
from tests.support import commands
from tests.support.waiting import eventually_blocking

_SECRET = "correct horse battery"


def test_users_are_added_changed_listed_and_removed(tmp_path: Path) -> None:
    users, secret = tmp_path / "users.json", tmp_path / "password"
    secret.write_text(f"{_SECRET}\n")
    add = ("web", "users", "add", "alice", "--users", str(users), "--password-file", str(secret), "--role")
    assert "added user 'alice' with the role operator" in commands.run(*add, "operator").stdout
    assert "changed user 'alice' with the role viewer" in commands.run(*add, "VIEWER").stdout
    assert _SECRET not in users.read_text()
    with changed_users(users) as known:
        known["alice"] = msgspec.structs.replace(known["alice"], apps={"grading": AppRole("student", ("7",))})
    assert "changed user 'alice' with the role viewer" in commands.run(*add, "viewer").stdout
    listed = commands.run("web", "users", "list", "--users", str(users), "--json").stdout
    alice = {"name": "alice", "role": "viewer", "apps": {"grading": "student"}}
    assert [json.loads(line) for line in listed.splitlines()] == [alice]
    assert read_users(users)["alice"].apps == {"grading": AppRole("student", ("7",))}
    more = {"RABBITRY_WEB_USERS": str(users)}
    assert commands.run("web", "users", "list", more=more).stdout == "viewer    alice  grading: student\n"

    with commands.service("web", "--port", "0", "--broker", "amqp://127.0.0.1:1/", more=more) as web:
        url = web.wait_for(r"dashboard on (http://\S+)/")[1]
        assert httpx.get(f"{url}/session", auth=("alice", _SECRET), timeout=60).json()["role"] == "viewer"
        assert httpx.get(f"{url}/queues/", timeout=60).status_code == 401
        assert commands.run("web", "users", "remove", "alice", more=more).returncode == 0

        def is_refused() -> bool:
            return httpx.get(f"{url}/session", auth=("alice", _SECRET), timeout=60).status_code == 401

        eventually_blocking(is_refused, "the user is gone for the dashboard that runs")


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path) -> None:
    users, secret = tmp_path / "users.json", tmp_path / "password"
    secret.write_text("short")
    more = {"RABBITRY_WEB_USERS": str(users)}
    for arguments, why in (
        (("add", "alice", "--role", "root"), "root"),
        (("add", "a:b", "--role", "viewer"), "'a:b' can't be a user's name"),
        (("add", "alice", "--role", "viewer"), "missing password for user 'alice': set RABBITRY_WEB_PASSWORD"),
        (("add", "alice", "--role", "viewer", "--password-file", str(secret)), "8 to 1024 characters"),
        (("remove", "alice"), "there is no user 'alice'"),
    ):
        done = commands.run("web", "users", *arguments, more=more)
        assert done.returncode == 2, done.stderr
        assert why in done.stderr
    done = commands.run("web", "--port", "0", more=more)
    assert (done.returncode, "there is no file of users" in done.stderr) == (2, True)
    users.write_text("{}")
    users.chmod(0o644)
    done = commands.run("web", "--port", "0", more=more)
    assert (done.returncode, "chmod 600" in done.stderr) == (2, True)
