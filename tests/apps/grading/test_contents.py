"""The files in submitted archives as people read them: texts in any encoding, and hostile archives with the reason."""

import io
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.contents import MOST_FILES, ROOM, is_shown_unpacked, opened
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.message import readable
from rabbitry.apps.grading.showing import shown
from rabbitry.exceptions import UsageError


def zipped(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP archive; a name may occur twice."""
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", compression) as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of equal names
        for name, data in entries:
            archive.writestr(name, data)
    return packed.getvalue()


def _tar(name: str, kind: bytes, target: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return packed.getvalue()


def test_the_files_of_an_archive_are_listed_and_read() -> None:
    texts = {"src/ü.py": "ä = 1\n", "src/old.c": "// für\n", "notes.txt": "zwei\r\nZeilen\n"}
    data = zipped(
        ("top/src/ü.py", texts["src/ü.py"].encode()),
        ("top/src/old.c", texts["src/old.c"].encode("cp1252")),
        ("top/notes.txt", texts["notes.txt"].encode("utf-16")),
        ("top/picture.png", b"\x89PNG\0"),
        ("top/empty.py", b""),
        ("__MACOSX/._ü.py", b"\0"),
    )
    assert is_shown_unpacked(data, "work.zip")
    with opened(data, "work.zip") as contents:
        assert contents.paths == ("empty.py", "notes.txt", "picture.png", "src/old.c", "src/ü.py")
        assert [(one["path"], one["size"], one["is_text"]) for one in contents.listed()] == [
            ("empty.py", 0, True), ("notes.txt", 28, True), ("picture.png", 5, False), ("src/old.c", 7, True),
            ("src/ü.py", 7, True),
        ]  # fmt: skip
        assert {path: readable(contents.read(path)) for path in texts} == texts
        assert readable(contents.read("picture.png")) is None
        for missing in ("top/notes.txt", "../notes.txt", "/etc/passwd", "src"):
            with pytest.raises(NoSuchID, match="has no file"):
                contents.read(missing)


def test_a_submission_that_is_no_archive_is_one_file() -> None:
    for data, name, path in ((b"x = 1\n", "../x.py", "x.py"), (b"plain", "a.zip", "a.zip"), (b"\0\1", "", "solution")):
        assert not is_shown_unpacked(data, name)
        with opened(data, name) as contents:
            assert (contents.paths, contents.read(path)) == ((path,), data)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.zip", zipped(("../up.py", b"x")), "a name with `..`"),
        ("a.zip", zipped(("/etc/x.py", b"x")), "an absolute name"),
        ("a.zip", zipped(("a.py", b"x"), ("a.py", b"y")), "the same name twice"),
        ("a.zip", zipped(("a\n.py", b"x")), "control characters"),
        ("a.zip", zipped((f"{'d/' * 30}a.py", b"x")), "more than 20 folders deep"),
        ("a.zip", zipped(*((f"{number}.py", b"") for number in range(2_100))), "more than 2000 entries"),
        ("a.zip", zipped(("a.py", bytes(ROOM + 1)), compression=zipfile.ZIP_DEFLATED), f"the {ROOM} bytes on disk"),
        ("a.zip", b"PK\3\4 damaged", "can't be read"),
        ("a.tar", _tar("a.py", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        ("a.tar", _tar("a.py", tarfile.LNKTYPE, "/etc/passwd"), "a hard link"),
        ("a.tar", _tar("a.py", tarfile.CHRTYPE), "a device"),
    ],
    ids=["up", "absolute", "twice", "control", "deep", "many", "bomb", "damaged", "link", "hard-link", "device"],
)
def test_a_hostile_archive_is_refused_with_the_reason(
    name: str, data: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError, match=why), opened(data, name):
        pytest.fail("it was unpacked")
    answer = shown(data, name)
    assert (why in answer["refused"], answer["files"], answer["is_binary"]) == (True, None, True)
    assert [*tmp_path.iterdir()] == []


def test_the_list_is_bounded() -> None:
    data = zipped(*((f"{number:04}.py", b"x") for number in range(MOST_FILES + 7)))
    answer = shown(data, "all.zip")
    assert (len(answer["files"]), answer["unlisted"]) == (MOST_FILES, 7)
    assert "".join(text for text, _ in shown(data, "all.zip", f"{MOST_FILES:04}.py")["pieces"]) == "x"


def test_a_machine_that_can_not_unpack_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    data = zipped(("a.py", b"x"))
    with pytest.raises(FilesError, match=r"this machine can't unpack the archive now: .*No such file"):
        shown(data, "a.zip", "a.py")
    assert "this machine can't unpack" in shown(data, "a.zip")["refused"], "the page shows the rest of the submission"
