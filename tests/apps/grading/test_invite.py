"""`rabbitry grading invite`: accounts with single-use links, of which the file holds only digests."""

import json
import re
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from rabbitry.apps import AppRole
from rabbitry.apps.passwords import hash_password
from rabbitry.apps.users_file import Account, accept, changed_users, read_users
from rabbitry.web.login.accounts import Accounts
from tests.support import commands


def _invite(users: Path, *arguments: str) -> list[dict[str, str]]:
    done = commands.run("grading", "invite", "--users", str(users), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _token(link: str) -> str:
    return parse_qs(urlsplit(link).fragment)["invitation"][0]


def test_people_are_invited_and_set_a_password_once(tmp_path: Path) -> None:
    users, students = tmp_path / "users.json", tmp_path / "students.csv"
    with changed_users(users) as known:
        known["otto"] = Account("operator", hash_password("correct horse", log_cost=1))
    students.write_text("\ufeff23200858\nZoë Ångström, 007\n\n", encoding="utf-8")
    listed = _invite(users, "--list", str(students), "--url", "https://course.example.org/rabbits")
    assert [one["name"] for one in listed] == ["23200858", "Zoë Ångström"]
    start = "https://course.example.org/rabbits/login/#name=Zo%C3%AB%20%C3%85ngstr%C3%B6m&invitation="
    assert listed[1]["link"].startswith(start)
    (otto,) = _invite(users, "otto", "--role", "demonstrator", "--module", "cloud_computing", "--module", "data_mining")
    kept = users.read_text()
    assert not any(_token(one["link"]) in kept for one in [*listed, otto])
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    known = read_users(users)
    assert known["Zoë Ångström"].apps == {"grading": AppRole("student", ("007",))}
    assert (known["Zoë Ångström"].role, known["Zoë Ångström"].password) == ("member", "")
    assert known["otto"].apps == {"grading": AppRole("demonstrator", ("cloud_computing", "data_mining"))}
    assert (known["otto"].role, known["otto"].password != "") == ("operator", True)  # until the link is used

    assert accept(users, _token(otto["link"]), "a new password") == "otto"
    assert read_users(users)["otto"].invitation is None
    assert read_users(users)["23200858"].invitation is not None


def test_people_may_get_a_first_password_or_none(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    (first,) = _invite(users, "ben", "--role", "assistant", "--sign-in", "password")
    password = first["password"]
    assert re.fullmatch(r"([a-z2-9]{5}-){3}[a-z2-9]{5}", password)
    assert password not in users.read_text()
    (other,) = _invite(users, "cleo", "--role", "coordinator", "--sign-in", "oidc")
    assert other == {"name": "cleo", "role": "coordinator"}
    assert read_users(users)["cleo"].invitation is None

    accounts = Accounts(users, None, lambda _: None)
    assert accounts.is_first("ben", password)
    assert not any(accounts.is_first(*wrong) for wrong in [("cleo", password), ("ben", ""), ("nobody", password)])
    assert accept(users, password, "a new password") == "ben"
    assert not Accounts(users, None, lambda _: None).is_first("ben", password)
    done = commands.run("grading", "invite", "--users", str(users), "7", "--sign-in", "password")
    assert (done.returncode, len(done.stdout.strip())) == (0, 23)
    assert "each first password holds once, within 7 days, on http://127.0.0.1:8003/login/" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "either NAME or --list"),
        (("ann", "--role", "demonstrator"), "missing --module: name the modules of the demonstrator 'ann'"),
        (("ann", "--role", "demonstrator", "--module", "x"), "unknown module 'x'"),
        (("ann", "--role", "assistant", "--module", "data_mining"), "--module is only for demonstrators"),
        (("ann", "--role", "assistant", "--student", "7"), "--student is only for students"),
        (("ann",), "'ann' is not a student number"),
        (("7", "--url", "javascript:alert(1)"), "is not the address of a dashboard"),
        (("--list", "FILE", "--role", "assistant"), "can't be combined"),
        (("--list", "FILE"), "line 2: 'x' is not a student number"),
        (("a:b", "--student", "7"), "can't be a user's name"),
    ],
)
def test_what_makes_no_sense_invites_nobody(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    (tmp_path / "list.csv").write_text("7\nx\n")
    given = [argument.replace("FILE", str(tmp_path / "list.csv")) for argument in arguments]
    done = commands.run("grading", "invite", "--users", str(tmp_path / "users.json"), *given)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "users.json").exists()
