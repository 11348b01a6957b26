"""What each role in the course may do in the dashboard: every route with every role, and only one's own submissions."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from rabbitry.apps import AppRole, Role, Site, User
from rabbitry.apps.grading.message import Decision, submission
from rabbitry.apps.grading.people import EVERYBODY, Person, person_of
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, inbox
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.apps.grading.students import Submitter
from rabbitry.apps.passwords import hash_password
from rabbitry.apps.users_file import Account, changed_users
from rabbitry.exceptions import UsageError
from rabbitry.web.server import mounts
from tests.apps.grading._running import ON_BOTH_DATABASES, course_database
from tests.apps.grading.test_releasing import SECRETS, after, judged, told
from tests.web.login.dashboards import PASSWORD, client, dashboard, example, routes_of

_READ: Final = {*EVERYBODY}
_STAFF: Final = {*EVERYBODY} - {"student"}
ALLOWED: Final = {
    "GET /grading/api/overview": _READ,
    "GET /grading/api/submissions/{identity}": _READ,
    "GET /grading/api/files/{identity}": _READ,
    "GET /grading/api/texts/{identity}": _READ,
    "GET /grading/api/changes/{identity}": _READ,
    "GET /grading/api/pictures/{identity}/{number}": _READ,
    "POST /grading/api/submissions": {"student", "coordinator"},
    "GET /grading/api/inbox/{role}": _STAFF,
    "GET /grading/api/inbox/{role}/{identity}": _STAFF,
    "GET /grading/api/inbox/{role}/{identity}/before": _STAFF,
    "POST /grading/api/inbox/{role}/{identity}": _STAFF,
    "GET /grading/api/unsent/{role}": _STAFF,
    "POST /grading/api/unsent/{role}/{identity}": _STAFF,
    "POST /grading/api/submissions/{identity}/requests": {"student", "coordinator"},
    "GET /grading/api/requests": _STAFF,
    "POST /grading/api/requests/{number}": {"demonstrator", "assistant"},
    "GET /grading/api/stats": _STAFF,
    "GET /grading/api/room": _STAFF,
    "GET /grading/api/similar": _STAFF,
    "POST /grading/api/similar": _STAFF,
    "GET /grading/api/similar/{one}/{other}": _STAFF,
    "GET /grading/api/regrades": {"coordinator"},
    "POST /grading/api/regrades": {"coordinator"},
    "POST /grading/api/regrades/trial": {"coordinator"},
    "GET /grading/api/regrades/{run}": {"coordinator"},
    "POST /grading/api/submissions/{identity}/acceptance": {"coordinator"},
    "POST /grading/api/submissions/{identity}/withdrawal": {"coordinator"},
    "GET /grading/api/releases": _STAFF,
    "POST /grading/api/releases": {"coordinator"},
    "GET /grading/": _READ,
    "GET /grading/static": _READ,
    # Of the dashboard: what everybody who can sign in uses.
    "GET /": _READ,
    "GET /login/": _READ,
    "GET /session": _READ,
    "POST /session": _READ,
    "POST /invitation": _READ,
    "GET /oidc": _READ,
    "GET /oidc-callback": _READ,
    "POST /logout": _READ,
    "GET /static": _READ,
    "GET /static/views.js": _READ,
}
"""Route → the roles in the course that may use it; all other routes of the dashboard are closed to people who have one.

A new route of grading is closed to them too until its `needs` names roles, and it is added here with care.
"""
_OWN: Final = {
    "demonstrator": AppRole("demonstrator", ("cloud_computing",)),
    "assistant": AppRole("assistant"),
    "coordinator": AppRole("coordinator"),
    "student": AppRole("student", ("7",)),
}


def _account(role: AppRole, dashboard_role: str = "member") -> Account:
    hashed = hash_password(PASSWORD, log_cost=1)
    return msgspec.convert({"role": dashboard_role, "password": hashed, "apps": {"grading": role}}, Account)


@pytest.fixture
def app(tmp_path: Path, found_url: str) -> FastAPI:
    """A dashboard with a user for each role in the course, of the same name."""
    assert found_url
    file = tmp_path / "users.json"
    with changed_users(file) as users:
        users |= {name: _account(role) for name, role in _OWN.items()}
        users["overseer"] = _account(_OWN["student"], "operator")
        users["head"] = _account(_OWN["student"], "admin")
    return dashboard(tmp_path, mounts(Site(broker="amqp://127.0.0.1:1/")), users=file)


@pytest.mark.parametrize("role", EVERYBODY)
async def test_every_route_is_open_to_the_roles_of_its_row_and_closed_to_all_others(app: FastAPI, role: str) -> None:
    routes = {*routes_of(app)}
    assert {*ALLOWED} <= routes
    async with client(app) as http:
        for route in sorted(routes):
            method, _, path = route.partition(" ")
            if method == "WS":
                continue  # tests/web/login/test_roles.py: closed to members
            answer = await http.request(method, example(path, role), auth=(role, PASSWORD))
            is_refused = answer.status_code == 403 and "needs the role" in answer.text
            assert is_refused == (role not in ALLOWED.get(route, ())), (route, answer.status_code, answer.text)
            assert is_refused or answer.status_code != 401


async def test_marking_again_is_in_the_audit_log(app: FastAPI, found_url: str) -> None:
    with course_database(found_url):
        async with client(app) as http:
            wanted = {"module": "cloud_computing", "remark": "mended"}
            answer = await http.post("/grading/api/regrades", json=wanted, auth=("coordinator", PASSWORD))
            assert (answer.status_code, answer.json()["who"]) == (200, "coordinator"), answer.text
            entries = (await http.get("/audit/api/entries", auth=("head", PASSWORD))).json()
    assert (entries[0]["action"], entries[0]["queue"], entries[0]["result"]) == (
        "mark again",
        "cloud_computing",
        "done",
    )
    assert entries[0]["who"].startswith("coordinator, ")


@pytest.mark.parametrize("role", sorted(_STAFF))
async def test_the_inboxes_of_other_roles_are_closed(app: FastAPI, role: str) -> None:
    async with client(app) as http:
        for other in ROLES:
            for method, path in (("GET", ""), ("GET", "/1"), ("POST", "/1")):
                body = b'{"action": "confirm"}' if method == "POST" else None
                for list_ in ("inbox", "unsent"):
                    place = f"/grading/api/{list_}/{other}{path}"
                    answer = await http.request(method, place, auth=(role, PASSWORD), content=body)
                    is_refused = answer.status_code == 403
                    assert is_refused == (other != role) or answer.status_code == 405, (method, place, answer.text)


async def test_a_role_in_the_course_counts_there_instead_of_that_in_the_dashboard_except_for_an_admin(
    app: FastAPI,
) -> None:
    async with client(app) as http:
        inbox_ = "/grading/api/inbox/assistant"
        assert (await http.get(inbox_, auth=("overseer", PASSWORD))).status_code == 403
        assert (await http.get("/queues/", auth=("overseer", PASSWORD))).status_code == 200
        assert (await http.get(inbox_, auth=("head", PASSWORD))).status_code == 200


def _record(database: Database, student: str, module: str, *, waits: bool) -> str:
    """Record a submission, which waits for a demonstrator or for an assistant."""
    made = submission(student, module, f"of {student}".encode(), "x.py", "")
    made["SubmissionID"] = new_id(made)
    role = ROLES["demonstrator"]
    if not waits:
        made = decide(made, role, "correct", Decision("ann", 5, 10))
        role = ROLES["assistant"]
    database.write_now(partial(course.record, assignment=made))
    database.write_now(partial(inbox.put, role=role, assignment=made, exchange="x", message=f"m {made.id}"))
    return made.id


class _Three(NamedTuple):
    """Three submissions that wait: of student 7, and of student 77 in the same and in another module."""

    own: str
    others: str
    elsewhere: str


def _record_three(url: str) -> _Three:
    """Record them. The second one waits for an assistant, the others for demonstrators."""
    with Database(url) as records:
        return _Three(
            _record(records, "7", "cloud_computing", waits=True),
            _record(records, "77", "cloud_computing", waits=False),
            _record(records, "77", "data_mining", waits=True),
        )


@ON_BOTH_DATABASES
async def test_each_person_sees_only_what_they_may(app: FastAPI, found_url: str) -> None:
    three = _record_three(found_url)
    seen = {
        "student": {three.own},
        "demonstrator": {three.own, three.others},
        "assistant": {*three},
        "coordinator": {*three},
    }
    inboxes = {"student": {}, "demonstrator": {"demonstrator": 1}, "assistant": {"assistant": 1}, "coordinator": {}}
    async with client(app) as http:
        for name, wanted in seen.items():
            auth = (name, PASSWORD)
            overview = (await http.get("/grading/api/overview", auth=auth)).json()
            assert {one["id"] for one in overview["submissions"]} == wanted
            assert (overview["total"], sum(overview["statuses"].values())) == (len(wanted), len(wanted))
            assert (overview["inboxes"], overview["person"]["role"]) == (inboxes[name], name)
            for identity in three:
                found = await http.get(f"/grading/api/submissions/{identity}", auth=auth)
                assert (found.status_code, found.json() is not None) == (200, identity in wanted)
                # Their records have no kept files: what waits in an inbox is there.
                file = await http.get(f"/grading/api/files/{identity}", auth=auth)
                assert file.status_code == (200 if identity in wanted else 404), (name, file.text)
                if name == "student":
                    text = await http.get(f"/grading/api/texts/{identity}", auth=auth)
                    assert text.status_code == file.status_code, text.text


@ON_BOTH_DATABASES
async def test_each_person_decides_only_what_waits_for_them(app: FastAPI, found_url: str) -> None:
    three = _record_three(found_url)
    verdict = {"action": "correct", "mark": 10, "out_of": 10, "who": "somebody else"}
    async with client(app) as http:
        for role, identity, status in (
            ("demonstrator", three.own, 200),
            ("demonstrator", three.elsewhere, 404),
            ("assistant", three.others, 200),
        ):
            answer = await http.get(f"/grading/api/inbox/{role}/{identity}", auth=(role, PASSWORD))
            assert answer.status_code == status, answer.text
        place, auth = "/grading/api/inbox/demonstrator", ("demonstrator", PASSWORD)
        refused = await http.post(f"{place}/{three.elsewhere}", auth=auth, json=verdict)
        assert refused.status_code == 404
        done = await http.post(f"{place}/{three.own}", auth=auth, json=verdict)
        assert done.json() == {"id": three.own, "status": "corrected"}
        later = await http.get(f"{place}/{three.own}", auth=auth)
        assert "demonstrator decided as the demonstrator" in later.text  # under the name of the account


@ON_BOTH_DATABASES
async def test_a_demonstrator_learns_nothing_of_other_modules(app: FastAPI, found_url: str) -> None:
    three, auth = _record_three(found_url), ("demonstrator", PASSWORD)
    async with client(app) as http:
        for place in ("stats?module=data_mining", "similar?module=data_mining"):
            assert (await http.get(f"/grading/api/{place}", auth=auth)).status_code == 403
        for unknown in (three.elsewhere, "ffffffff"):  # which of the two is recorded is not told
            refused = await http.get(f"/grading/api/similar/{three.own}/{unknown}", auth=auth)
            assert (refused.status_code, refused.json()["error"].replace(unknown, "ID")) == (
                404, "no submission has the id 'ID', or an id that begins so"
            )  # fmt: skip
        assert (await http.get("/grading/api/similar?module=cloud_computing", auth=auth)).status_code == 200


@ON_BOTH_DATABASES
async def test_a_prefix_of_ids_that_a_person_may_not_see_is_unknown(app: FastAPI, found_url: str) -> None:
    with Database(found_url) as records:
        for identity in ("twin1", "twin2"):  # in an inbox already, and not yet recorded
            made = submission("77", "data_mining", b"x", "x.py", identity)
            put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="x", message=identity)
            records.write_now(put)
    async with client(app) as http:
        for name, place in (
            ("student", "files/twin"),
            ("demonstrator", "files/twin"),
            ("demonstrator", "inbox/demonstrator/twin"),
        ):
            refused = await http.get(f"/grading/api/{place}", auth=(name, PASSWORD))
            assert (refused.status_code, "twin1" in refused.text) == (404, False), place


@ON_BOTH_DATABASES
async def test_a_student_sees_no_results_before_a_coordinator_releases_them(app: FastAPI, found_url: str) -> None:
    with course_database(found_url) as records:
        identity = judged(records, "7")

    async def seen(http: httpx.AsyncClient) -> dict[str, list[str]]:
        found = {}
        for name in EVERYBODY:
            places = "overview", f"submissions/{identity}"
            shown = [(await http.get(f"/grading/api/{place}", auth=(name, PASSWORD))).json() for place in places]
            assert (shown[0]["submissions"][0]["id"], shown[1]["status"]) == (identity, "confirmed")
            found[name] = told(shown)
        return found

    async def set_(http: httpx.AsyncClient, until: str, module: str = "cloud_computing", remark: str = "x") -> int:
        wanted = {"module": module, "until": until, "remark": remark}
        answer = await http.post("/grading/api/releases", auth=("coordinator", PASSWORD), json=wanted)
        return answer.status_code

    async with client(app) as http:
        everything = {name: list(SECRETS) for name in EVERYBODY}
        assert await seen(http) == everything
        for wrong in (("tomorrow",), (after(9), "weaving"), (after(9), "cloud_computing", " ")):
            assert await set_(http, *wrong) == 400
        assert await set_(http, after(3600)) == 200
        assert await seen(http) == everything | {"student": []}
        held = (await http.get(f"/grading/api/submissions/{identity}", auth=("student", PASSWORD))).json()
        assert held["held_until"] == held["releases"][0]["until"]
        assert await set_(http, "") == 200
        assert await seen(http) == everything
        place, auth = "/grading/api/releases?module=", ("demonstrator", PASSWORD)
        listed = (await http.get(f"{place}cloud_computing", auth=auth)).json()
        assert [(one["who"], one["is_ahead"]) for one in listed] == [("coordinator", False), ("coordinator", True)]
        assert (await http.get(f"{place}data_mining", auth=auth)).status_code == 403
        entries = (await http.get("/audit/api/entries", auth=("head", PASSWORD))).json()
    assert [(one["action"], one["queue"]) for one in entries][:1] == [("hold or release results", "cloud_computing")]


async def test_a_student_hands_in_only_their_own_work(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int | str, str | None]] = []

    async def submit(self: Submitter, student: int | str, *_: object, who: str | None = None) -> str:
        told.append((student, who))
        return "1"

    async with client(app) as http:

        async def hand_in(name: str, student: str) -> httpx.Response:
            data, files = {"module": "cloud_computing", "student": student}, {"file": ("x.py", b"x")}
            return await http.post("/grading/api/submissions", auth=(name, PASSWORD), data=data, files=files)

        answer = await hand_in("student", "77")
        assert (answer.status_code, "only your own work, as student 7" in answer.text) == (400, True)
        assert (await hand_in("student", "")).status_code == 503  # all is well but the broker, which is not there
        with monkeypatch.context() as patched:
            patched.setattr(Submitter, "submit", submit)
            assert (await hand_in("student", "7")).status_code == 200
        assert told == [(7, "student")]  # under the name of the account
        answer = await hand_in("coordinator", "")
        assert (answer.status_code, "missing student number" in answer.text) == (400, True)


async def test_a_student_sends_one_request_at_a_time(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def ask(*_: object) -> int:
        begun.set()
        await go_on.wait()
        return 1

    monkeypatch.setattr("rabbitry.apps.grading.web_requests.ask", ask)
    async with client(app) as http:

        async def send(student: str) -> httpx.Response:
            typed = {"student": student, "reason": "why?"}
            return await http.post("/grading/api/submissions/1/requests", auth=("coordinator", PASSWORD), json=typed)

        first = asyncio.create_task(send("7"))
        await begun.wait()
        again = await send("7")
        assert (again.status_code, "wait for its reply" in again.text) == (400, True)
        go_on.set()
        assert (await send("8")).status_code == 200
        assert (await first).json() == {"request": 1}
        assert (await send("7")).status_code == 200


async def test_a_member_sees_only_the_pages_of_their_apps(app: FastAPI) -> None:
    async with client(app) as http:
        first = await http.get("/", auth=("student", PASSWORD))
        assert (first.status_code, first.headers["location"]) == (303, "grading/")
        page = (await http.get("/grading/", auth=("student", PASSWORD))).text
        assert "queues/" not in page
        assert "<bdi>student</bdi>, student" in page
        views = (await http.get("/static/views.js", auth=("student", PASSWORD))).text
        assert "grading/" in views
        assert "queues" not in views
        assert "monitor" not in views


async def test_read_only_holds_for_roles_in_the_course(tmp_path: Path, app: FastAPI) -> None:
    assert app
    site = mounts(Site(broker="amqp://127.0.0.1:1/"))
    closed = dashboard(tmp_path, site, users=tmp_path / "users.json", is_read_only=True)
    async with client(closed) as http:
        assert (await http.get("/grading/api/overview", auth=("student", PASSWORD))).status_code == 200
        answer = await http.post("/grading/api/submissions", auth=("student", PASSWORD))
        assert (answer.status_code, "--read-only" in answer.text) == (403, True)


def test_what_a_user_may_do() -> None:
    def user(role: AppRole, **more: object) -> User:
        return User("ann", Role.MEMBER, "127.0.0.1", apps={"grading": role}, **more)  # type: ignore[arg-type] # a test's own

    assert person_of(User("", Role.ADMIN, "127.0.0.1")) == Person()
    assert person_of(User("x", Role.ADMIN, "127.0.0.1", is_shared=True)).name is None
    assert person_of(user(AppRole("student"))).sees("", "") is True  # of nobody: no number is empty
    assert person_of(user(AppRole("student"))).sees("7", "cloud_computing") is False
    assert person_of(user(AppRole("demonstrator"))).sees("7", "cloud_computing") is False
    assert person_of(user(AppRole("no such role"))).inboxes == ()
    with pytest.raises(UsageError, match="only your own work"):
        person_of(user(_OWN["student"])).number("8")
