"""Requests that the page's server refuses, and its answers while the broker or the database is away."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rabbitry.apps.grading import staff, students
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import submission
from rabbitry.apps.grading.records import Database, course, keeping
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.apps.grading.web import Pages
from rabbitry.apps.grading.web_regrades import Audited
from rabbitry.web.api import described
from tests.apps.grading._running import ON_BOTH_DATABASES, PEOPLE, Plain, arrived, role_set, submit
from tests.apps.grading.test_contents import zipped
from tests.apps.grading.test_notebooks import code, markdown, notebook, png, shows
from tests.apps.grading.test_regrading import _confirmed
from tests.support.ports import free_port
from tests.web.described import Described

pytestmark = pytest.mark.timeout(120)


class Served:
    """The page's API with a broker and a database."""

    def __init__(
        self, broker: str, database: str, *, wiring: Wiring | None = None, audit: Audited | None = None
    ) -> None:
        self.pages = Pages(broker, database, wiring=wiring, audit=audit)
        app = FastAPI()
        app.include_router(self.pages.router)
        transport, hooks = httpx.ASGITransport(app), {"response": [Described(described(app)).check]}
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", event_hooks=hooks)


@pytest.fixture
async def served(embedded_url: str, found_url: str) -> AsyncIterator[Served]:
    made = Served(embedded_url, found_url)
    async with made.pages.open(), made.http:
        yield made


@pytest.fixture
async def beside(broker_url: str, found_url: str) -> AsyncIterator[Served]:
    made = Served(broker_url, found_url)
    async with made.pages.open(), made.http:
        yield made


def form(student: str = "7", module: str = "cloud_computing", data: bytes = b"x") -> dict[str, Any]:
    return {"data": {"student": student, "module": module}, "files": {"file": ("x.py", data)}}


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (form(student="abc"), "not a student number"),
        (form(student="0"), "not a student number"),
        (form(module="basket_weaving"), "unknown module"),
        (form(data=b""), "the file is empty"),
        (form(data=b"x" * 101), "too large"),
        (form(data=b"x" * 30_000), "too large: more than 20100 bytes"),
    ],
)
async def test_invalid_submissions_are_refused(
    served: Served, form: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "course.toml"
    config.write_text('largest_submission = 100\n[modules.cloud_computing]\nshort = "cc"\n')
    monkeypatch.setenv("RABBITRY_GRADING", str(config))
    answer = await served.http.post("/api/submissions", **form)
    assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


async def test_a_body_of_unknown_length_is_not_read(served: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        raise AssertionError("it was read")

    answer = await served.http.post("/api/submissions", content=endless())
    assert (answer.status_code, "Content-Length" in answer.json()["error"]) == (400, True)


async def test_a_chunked_body_is_not_read_even_with_a_length(served: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        raise AssertionError("it was read")

    both = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    answer = await served.http.post("/api/submissions", content=endless(), headers=both)
    assert (answer.status_code, "Content-Length" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"data": {"student": "7"}}, "file, module"),
        ({"data": {"student": "7", "module": "x", "file": "text"}}, "file"),
        ({"data": {"module": "x"}, "files": {"file": b"x", "student": b"7"}}, "student"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "boundary"),
    ],
)
async def test_a_malformed_form_gets_a_readable_error(served: Served, request_: dict[str, Any], why: str) -> None:
    answer = await served.http.post("/api/submissions", **request_)
    assert answer.status_code == 400
    assert (list(answer.json()), why in answer.json()["error"]) == (["error"], True), answer.text


async def test_invalid_decisions_are_refused(beside: Served, broker_url: str, found_url: str) -> None:
    with Database(found_url) as database:
        async with role_set(broker_url, database, PEOPLE):
            identity = await submit(broker_url)
            await arrived(database, "demonstrator")
            where = f"/api/inbox/demonstrator/{identity}"
            item = (await beside.http.get(where)).json()
            assert (item["student"], item["solution"], item["actions"]) == ("7", "x = 1\n", ["correct"])
            assert "".join(text for text, _ in item["pieces"]) == item["solution"]
            assert ["1", "number"] in item["pieces"]
            assert (await beside.http.get(f"{where}/before")).json() == {"id": None}
            for body in (
                b"{",
                b'{"action": "confirm"}',
                b'{"action": "correct", "mark": -1}',
                b'{"action": 1, "x": 2}',
            ):
                answer = await beside.http.post(where, content=body)
                assert answer.status_code == 400, answer.text
            assert (await beside.http.get("/api/inbox/nobody")).status_code == 400
            assert (await beside.http.get(f"/api/inbox/assistant/{identity}")).status_code == 404
            first = await beside.http.post(where, json={"action": "correct", "mark": 1, "who": "Ann"})
            assert first.json() == {"id": identity, "status": "corrected"}
            again = await beside.http.post(where, json={"action": "correct", "mark": 2})
            assert (again.status_code, "Ann decided as the demonstrator" in again.json()["error"]) == (404, True)
            assert (await beside.http.get("/api/submissions/nothing")).json() is None


async def test_an_unreachable_broker_is_reported_and_a_later_submission_works(tmp_path: Path) -> None:
    from tests.support.embedded import BrokerProcess

    with BrokerProcess() as broker:
        broker.kill()
        made = Served(broker.url, f"sqlite:///{tmp_path / 'course.sqlite3'}")
        async with made.pages.open(), made.http:
            answer = await made.http.post("/api/submissions", **form())
            assert answer.status_code == 503
            assert "error" in answer.json()
            broker.start()
            answer = await made.http.post("/api/submissions", **form())
            assert answer.status_code == 200, answer.text


async def test_an_unreachable_database_is_shown_without_its_password(embedded_url: str) -> None:
    made = Served(embedded_url, f"postgresql://ann:secret@127.0.0.1:{free_port()}/course")
    async with made.pages.open(), made.http:
        answer = await made.http.get("/api/overview")
        assert answer.status_code == 503
        assert "secret" not in answer.text


async def test_plain_programs_join_after_a_submission_on_the_page(broker_url: str, found_url: str) -> None:
    made = Served(broker_url, found_url, wiring=Wiring(plain=True))
    async with made.pages.open(), made.http:
        answer = await made.http.post("/api/submissions", **form())
        assert answer.status_code == 200, answer.text
    with Plain(broker_url) as plain:
        plain.declare("correction_queue_cc", "demonstrator_cc")  # raises 406 if the page had declared them durable
        (fields,) = await asyncio.to_thread(plain.take, "correction_queue_cc")
    assert (fields["StudentID"], fields["Module"], fields["status"]) == (7, "cloud_computing", "submitted")


@ON_BOTH_DATABASES
async def test_what_changed_since_the_attempt_before_is_shown(served: Served, found_url: str) -> None:
    with Database(found_url) as database:
        files = Files(default_place(found_url))
        first, second, third = [
            await asyncio.to_thread(_confirmed, database, files, 7, data) for data in (b"a\nb\n", b"a\nc\n", b"\0")
        ]
        answer = (await served.http.get(f"/api/changes/{second}")).json()
        assert (answer["id"], answer["name"], answer["is_cut"]) == (first, "x.py", False)
        assert [(row["kind"], row["before"], row["after"]) for row in answer["rows"]] == [
            ("same", "a", "a"), ("changed", "b", "c")
        ]  # fmt: skip
        for identity, why in ((first, "no attempt before"), (third, "is not text")):
            refused = await served.http.get(f"/api/changes/{identity}")
            assert (refused.status_code, why in refused.json()["error"]) == (400, True)
        assert (await served.http.get("/api/room")).json() == {"used": None, "total": 100_000_000_000}
        database.write_now(partial(course.note_place, place=files.place))
        assert (await served.http.get("/api/room")).json()["used"] == database.read_now(keeping.used) > 20
        shown = (await served.http.get(f"/api/texts/{third}")).json()
        assert (shown["pieces"], shown["is_binary"]) == ([], True)


@ON_BOTH_DATABASES
async def test_a_notebook_is_shown_with_its_pictures(served: Served, found_url: str) -> None:
    data = notebook(markdown("*a*"), code("x", shows(image_png=png())))
    with Database(found_url) as database:
        made = submission(7, "cloud_computing", data, "x.ipynb", "n1")
        kept = Files(default_place(found_url)).keep(data)
        database.write_now(partial(course.record, assignment=made, kept=kept))
    cells = (await served.http.get("/api/texts/n1")).json()["notebook"]
    assert [cell["kind"] for cell in cells] == ["markdown", "code"]
    assert cells[1]["outputs"] == [{"kind": "picture", "text": "", "picture": 0}]
    picture = await served.http.get("/api/pictures/n1/0")
    assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
    assert (picture.headers["Content-Type"], picture.headers["X-Content-Type-Options"]) == ("image/png", "nosniff")
    assert (await served.http.get("/api/pictures/n1/1")).status_code == 404


@ON_BOTH_DATABASES
async def test_the_files_of_an_archive_are_shown_and_compared(served: Served, found_url: str) -> None:
    pictured = notebook(code("x", shows(image_png=png())))
    first = zipped(("src/a.py", b"x = 1\n"), ("b.ipynb", pictured))
    second = zipped(("src/a.py", b"x = 2\n"), ("b.ipynb", pictured))
    with Database(found_url) as database:
        files = Files(default_place(found_url))
        _, mine, unsafe = [
            await asyncio.to_thread(_confirmed, database, files, 7, data, name="work.zip")
            for data in (first, second, zipped(("../a.py", b"")))
        ]
    listed = (await served.http.get(f"/api/texts/{mine}")).json()
    assert (listed["is_binary"], listed["unlisted"], listed["refused"]) == (True, 0, None)
    assert [(one["path"], one["is_text"]) for one in listed["files"]] == [("b.ipynb", True), ("src/a.py", True)]
    text = (await served.http.get(f"/api/texts/{mine}", params={"path": "src/a.py"})).json()
    assert (["2", "number"] in text["pieces"], text["files"], text["is_binary"]) == (True, None, False)
    cells = (await served.http.get(f"/api/texts/{mine}", params={"path": "b.ipynb"})).json()["notebook"]
    assert cells[0]["outputs"] == [{"kind": "picture", "text": "", "picture": 0}]
    picture = await served.http.get(f"/api/pictures/{mine}/0", params={"path": "b.ipynb"})
    assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
    changes = (await served.http.get(f"/api/changes/{mine}")).json()
    assert (changes["path"], changes["files"]) == ("src/a.py", [{"path": "src/a.py", "change": "changed"}])
    assert [(row["before"], row["after"]) for row in changes["rows"]] == [("x = 1", "x = 2")]
    equal = (await served.http.get(f"/api/changes/{mine}", params={"path": "b.ipynb"})).json()
    assert (equal["path"], equal["rows"]) == ("b.ipynb", [])
    refused = (await served.http.get(f"/api/texts/{unsafe}")).json()
    assert (refused["files"], "a name with `..`" in refused["refused"]) == (None, True)
    for where, status in (
        (f"texts/{mine}?path=c.py", 404), (f"texts/{mine}?path=../../etc/passwd", 404), (f"changes/{unsafe}", 400),
        (f"texts/{unsafe}?path=a.py", 400), (f"texts/{mine}?path={'x' * 1_001}", 400),
    ):  # fmt: skip
        answer = await served.http.get(f"/api/{where}")
        assert (answer.status_code, "error" in answer.json()) == (status, True), where


async def test_another_look_is_asked_for_and_answered(
    beside: Served, broker_url: str, found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "REPLY_WITHIN", 60.0)
    monkeypatch.setattr(staff, "REPLY_WITHIN", 60.0)
    files = Files(default_place(found_url))
    with Database(found_url) as database:
        identity = await asyncio.to_thread(_confirmed, database, files, 7, b"x")
        async with role_set(broker_url, database, [RoleSpec("coordinator")], files=files):
            where = f"/api/submissions/{identity}/requests"
            answer = await beside.http.post(where, json={"student": "8", "reason": "mine"})
            assert (answer.status_code, "no submission of student 8" in answer.json()["error"]) == (404, True)
            number = (await beside.http.post(where, json={"student": "7", "reason": "why?"})).json()["request"]
            (waiting,) = (await beside.http.get("/api/requests")).json()["requests"]
            assert (waiting["id"], waiting["submission"], waiting["reason"]) == (number, identity, "why?")
            assert (await beside.http.get("/api/overview")).json()["requests"] == 1
            given = {"answer": "refused", "role": "demonstrator", "who": "Ann"}
            answer = await beside.http.post(f"/api/requests/{number}", json=given)
            assert (answer.status_code, "write why" in answer.json()["error"]) == (400, True)
            answer = await beside.http.post(f"/api/requests/{number}", json=given | {"answer": "upheld"})
            assert answer.json()["answer"] == "upheld", answer.text
            shown = (await beside.http.get(f"/api/submissions/{identity}")).json()
            assert [hop["status"] for hop in shown["history"]][-3:] == ["asked", "upheld", "submitted"]
            assert [one["who"] for one in shown["requests"]] == ["Ann"]
