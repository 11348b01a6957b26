"""Files saved from the records, one or all: hostile names and archives, and what is missing or damaged is named."""

import io
import json
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rabbitry.apps.grading.exporting import folder_name
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import Assignment, submission
from rabbitry.apps.grading.records import Database, course
from rabbitry.cli import _root
from tests.apps.grading.test_web import Served


def _zip(*entries: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return packed.getvalue()


_HANDED_IN: list[tuple[str, str, Any, str, bytes]] = [
    ("a1", "cloud_computing", 7, "old.py", b"first"),
    ("a2", "cloud_computing", 7, "solution.py", b"second"),
    ("a3", "cloud_computing", "../../etc", "../../passwd", b"climbs"),
    ("a4", "cloud_computing", "etc", ".profile", b"hides"),
    ("a5", "cloud_computing", 8, "work.zip", _zip(("work/main.py", b"main"), ("work/lib/help.py", b"help"))),
    ("a6", "cloud_computing", 9, "evil.zip", _zip(("../evil.py", b"evil"))),
    ("a7", "da/ta", "x" * 190 + "é" * 10, "n" * 500 + ".py", b"long"),
    ("a8", "data_mining", "10\x00\x1b[2J", "\x1b]0;.py", b"controls"),
]


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The records of submissions whose files are kept, but for one."""
    monkeypatch.chdir(tmp_path)
    url = database_url
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    files = Files(default_place(url))
    with Database(url) as database:
        for identity, module, student, name, data in _HANDED_IN:
            made = submission(student, module, data, name, identity)
            database.write_now(partial(course.record, assignment=made, kept=files.keep(data)))
        missing = Assignment(submission(11, "data_mining", b"x", "x.py", "a9"))
        database.write_now(partial(course.record, assignment=missing))
    return url


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_tree_has_a_folder_for_each_student(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _root.run(("grading", "export", "--files", "out", "--module", "cloud_computing")) == 1
    tree = _tree(tmp_path / "out")
    evil = tree.pop("cloud_computing/9/evil.zip")
    assert evil == _HANDED_IN[5][4]
    assert tree == {
        "cloud_computing/7/solution.py": b"second",
        f"cloud_computing/{folder_name('../../etc')}/passwd": b"climbs",
        "cloud_computing/etc/profile": b"hides",
        "cloud_computing/8/main.py": b"main",
        "cloud_computing/8/lib/help.py": b"help",
    }
    told = capsys.readouterr().err
    assert "a6 of student 9: the archive contains a name with `..`" in told
    assert "4 submissions in out" in told
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} - {"records-files"} == {"out"}


def test_hostile_names_stay_in_the_tree_and_off_the_terminal(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _root.run(("grading", "export", "--files", "out")) == 1
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "a9 of student 11: its file is not kept" in told
    assert sorted(_tree(tmp_path / "out").values()).count(b"long") == 1
    assert sorted(_tree(tmp_path / "out").values()).count(b"controls") == 1
    assert all(str(path).isprintable() for path in _tree(tmp_path / "out"))
    assert _root.run(("grading", "export", "--files", "out")) == 1
    assert "exists: export into a new folder" in capsys.readouterr().err


def test_names_of_folders_differ_for_different_students() -> None:
    names = ["etc", "../../etc", "a/etc", ".etc", "..", ".", "", "é" * 200, "é" * 199, "7", "７", "a\0b", "a\nb"]
    folders = [folder_name(name) for name in names]
    assert len({*folders}) == len(names)
    assert all(len(os.fsencode(name)) <= 255 and "/" not in name and not name.startswith(".") for name in folders)
    assert folders[0] == "etc"


def test_a_file_is_fetched_by_its_id(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = int(_root.run(("grading", "fetch", *arguments)))
        return code, *capsys.readouterr()

    assert run("a2") == (0, "solution.py\n", "")
    assert (tmp_path / "solution.py").read_bytes() == b"second"
    code, _, told = run("a2")
    assert (code, "solution.py exists; name another file: rabbitry grading fetch a2 FILE" in told) == (2, True)
    code, printed, _ = run("a3", "--json")
    assert json.loads(printed) == {"id": "a3", "file": "passwd", "bytes": 6}
    for wrong, why in (("zz", "no submission"), ("a", "several"), ("a9", "is not kept")):
        code, _, told = run(wrong)
        assert (code, why in told) == (1, True), told
    code, _, told = run("a4", "--files", str(tmp_path / "elsewhere"))
    assert (code, "is not in" in told, "--files or RABBITRY_FILES" in told) == (1, True, True)
    for path in Path(default_place(url)).glob("??/*"):
        path.write_bytes(b"damaged")
    code, _, told = run("a4")
    assert (code, "is damaged" in told) == (1, True)


async def test_the_page_serves_the_kept_file(url: str, tmp_path: Path) -> None:
    served = Served("amqp://127.0.0.1:1/", url)
    async with served.pages.open(), served.http as http:
        assert (await http.get("/api/submissions/a300")).json() is None
        answer = await http.get("/api/files/a3")
        assert (answer.status_code, answer.content) == (200, b"climbs")
        assert answer.headers["content-disposition"].startswith('attachment; filename="passwd"')
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        for identity in ("zz", "a9"):
            missing = await http.get(f"/api/files/{identity}")
            assert (missing.status_code, "error" in missing.json()) == (404, True)
        shutil.rmtree(default_place(url))
        gone = await http.get("/api/files/a3")
        assert gone.status_code >= 400
        assert "is not in" in gone.json()["error"]
