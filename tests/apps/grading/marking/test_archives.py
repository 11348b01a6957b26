"""Archives: unpacked members, and refusals with their reasons."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry.apps.grading.exceptions import SubmissionRefused
from rabbitry.apps.grading.marking import _bubblewrap, archives, is_archive
from rabbitry.apps.grading.marking.archives import MAX_ENTRIES, MAX_SUBMISSION, safe_name, unpack

_ROOM = 4 * 1024 * 1024
_STOPPED = r"used more than \d+ s of CPU time|ran longer than \d+ s"
"""What ends an unpacking that costs much time; on a busy machine the second comes first."""


def _zip(*entries: tuple[str, bytes], mode: int = 0) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return packed.getvalue()


def _tar(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, target: str = "", mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]  # mode is a parameter
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), target
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


_GOOD = [
    ("a.zip", _zip(("main.py", b"print(1)" * 40), ("lib/x.py", b"2"))),
    ("a.tar", _tar(("main.py", b"print(1)" * 40), ("l" * 120, b"2"))),
    ("a.tgz", _tar(("main.py", b"print(1)" * 40), ("lib/x.py", b"2"), mode="w:gz")),
    ("a.txz", _tar(("main.py", b"print(1)" * 40), ("lib/x.py", b"2"), mode="w:xz")),
]


def _sparse(map_: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.map": map_, "GNU.sparse.size": "1"}
        archive.addfile(info)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", _zip(("main.py", b"1"), ("lib/x.py", b"2"))),
        ("A.ZIP", _zip(("main.py", b"1"), ("lib/x.py", b"2"))),
        ("a.zip", _zip(("top/", b""), ("top/main.py", b"1"), ("top/lib/x.py", b"2"), ("__MACOSX/._main", b""))),
        ("a.tar", _tar(("./main.py", b"1"), ("lib/x.py", b"2"))),
        ("a.tar.gz", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:gz")),
        ("a.tgz", _tar(("top/main.py", b"1"), ("top/lib/x.py", b"2"), mode="w:gz")),
        ("a.tar.bz2", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:bz2")),
        ("a.tar.xz", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:xz")),
        ("solution", _zip(("main.py", b"1"), ("lib/x.py", b"2"))),
        ("solution", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:gz")),
        ("solution", _tar(("main.py", b"1"), ("lib/x.py", b"2"))),
        ("a.zip", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:gz")),
        ("a.tar.gz", _zip(("main.py", b"1"), ("lib/x.py", b"2"))),
        ("a.tar.gz", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:xz")),
        ("a.gz", _tar(("main.py", b"1"), ("lib/x.py", b"2"), mode="w:gz")),
        ("a.zip", _zip(("top\\main.py", b"1"), ("top\\lib\\", b""), ("top\\lib\\x.py", b"2"))),
        ("a.tar", _tar(("lib\\x.py", b"2"), ("main.py", b"1"))),
        ("a.zip", _zip(("a.zip", _zip(("main.py", b"1"), ("lib/x.py", b"2"))))),
        ("a.zip", _zip(("top/b.tar.gz", _tar(("t/main.py", b"1"), ("t/lib/x.py", b"2"), mode="w:gz")), ("._x", b""))),
    ],
)
def test_archives_become_their_files(tmp_path: Path, name: str, data: bytes) -> None:
    assert is_archive(name, data)
    unpack(data, name, tmp_path, room=_ROOM)
    assert _files(tmp_path) == {"main.py": b"1", "lib/x.py": b"2"}


@pytest.mark.parametrize(
    "junk",
    [".DS_Store", "desktop.ini", "Desktop.ini", "Thumbs.db", "._top", "__MACOSX/top/._main.py", "top/.DS_Store",
     "top/lib/._x.py", "Icon\r", ".Trashes/501/x", "$RECYCLE.BIN/desktop.ini"],
)  # fmt: skip
@pytest.mark.parametrize("pack", [_zip, _tar])
def test_files_of_file_managers_are_left_out(tmp_path: Path, pack: Callable[..., bytes], junk: str) -> None:
    data = pack((junk, b"junk"), ("top/main.py", b"1"), ("top/lib/x.py", b"2"))
    unpack(data, "a.zip" if pack is _zip else "a.tar", tmp_path, room=_ROOM)
    assert _files(tmp_path) == {"main.py": b"1", "lib/x.py": b"2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lib", "main.py"]


@pytest.mark.parametrize(
    ("name", "data", "file", "stored"),
    [
        ("main.py.gz", gzip.compress(b"print(1)"), None, "main.py"),
        ("my homework.py.GZ", gzip.compress(b"print(1)"), "main.py", "main.py"),
        ("-x.bz2", bz2.compress(b"print(1)"), None, "_x"),
        ("x.xz", lzma.compress(b"print(1)"), None, "x"),
    ],
)
def test_a_compressed_file_becomes_that_file(
    tmp_path: Path, name: str, data: bytes, file: str | None, stored: str
) -> None:
    unpack(data, name, tmp_path, room=_ROOM, file=file)
    assert _files(tmp_path) == {stored: b"print(1)"}


def test_a_compressed_file_stays_compressed_if_required(tmp_path: Path) -> None:
    data = gzip.compress(b"1,2")
    unpack(data, "a.csv.gz", tmp_path, room=_ROOM, file="data.csv.gz")
    assert _files(tmp_path) == {"data.csv.gz": data}


def test_names_in_other_encodings_are_read(tmp_path: Path) -> None:
    for folder, name, data in (
        ("utf-8 without its flag", "a.zip", _zip(("L__sung.py", b"1")).replace(b"L__sung", "Lösung".encode())),
        ("code page 437", "a.zip", _zip(("L_sung.py", b"1")).replace(b"L_sung", "Lösung".encode("cp437"))),
        ("latin-1", "a.tar", _latin_1_tar()),
        ("a narrow space", "a.zip", _zip(("10.00\u202fAM ö👩\u200d💻.py", b"1"))),
    ):
        (tmp_path / folder).mkdir()
        unpack(data, name, tmp_path / folder, room=_ROOM)
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")]
    assert sorted(found) == [
        "a narrow space/10.00\u202fAM ö👩\u200d💻.py",
        "code page 437/Lösung.py",
        "latin-1/Lösung.py",
        "utf-8 without its flag/Lösung.py",
    ]


def _latin_1_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("Lösung.py"))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "file", "why"),
    [
        ("hw.rar", b"Rar!\x1a\x07\1\0", "main.py", r"'hw.rar' is a RAR archive.* submit a \.zip or a \.tar\.gz"),
        ("hw.rar", b"Rar!\x1a\x07\0", None, "is a RAR archive"),
        ("hw.zip", b"Rar!\x1a\x07\0", None, "'hw.zip' is a RAR archive"),
        ("main.py", b"7z\xbc\xaf\x27\x1c\0\4", "main.py", "is a 7z archive"),
        ("hw.7z", b"7z\xbc\xaf\x27\x1c\0\4", None, "is a 7z archive"),
        ("hw.docx", _zip(("word/document.xml", b"")), "main.py", "'hw.docx' is an Office document, but 'main.py' is"),
        ("hw.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "main.py", "is an Office document"),
        ("hw.pdf", b"%PDF-1.7", "main.py", "is a PDF document"),
        ("hw.rtf", b"{\\rtf1", "main.py", "is an RTF document"),
        ("hw.png", b"\x89PNG\r\n", "main.py", "is an image"),
        ("hw.ipynb", b'{"cells": []}', "main.py", "is a Jupyter notebook"),
        ("main.py", _zip(("main.py", b"")), "main.py", "is a ZIP archive.* ends in .zip"),
        ("hw.zip", _zip(("hw.rar", b"Rar!\x1a\x07\0")), None, "in the archive, 'hw.rar' is a RAR archive"),
    ],
)
def test_an_unsuitable_file_is_refused(tmp_path: Path, name: str, data: bytes, file: str | None, why: str) -> None:
    with pytest.raises(SubmissionRefused, match=why):
        unpack(data, name, tmp_path, room=_ROOM, file=file)


@pytest.mark.parametrize(
    ("name", "data", "file"),
    [
        ("hw.docx", _zip(("word/document.xml", b"")), "report.docx"),
        ("hw.pdf", b"%PDF-1.7", "report.pdf"),
        ("hw.7z", b"7z\xbc\xaf\x27\x1c\0\4", "packed.7z"),
        ("hw.pdf", b"%PDF-1.7", None),
        ("hw.ipynb", b'{"cells": []}', "main.ipynb"),
    ],
)
def test_a_required_document_is_accepted(tmp_path: Path, name: str, data: bytes, file: str | None) -> None:
    unpack(data, name, tmp_path, room=_ROOM, file=file)
    assert _files(tmp_path) == {file or name: data}


@pytest.mark.parametrize("name", ["main.py", "report.docx", "solution"])
def test_anything_else_is_one_file(tmp_path: Path, name: str) -> None:
    data = b"PK\3\4" if "." in name else b"print(1)"
    assert not is_archive(name, data)
    unpack(data, name, tmp_path, room=_ROOM)
    assert _files(tmp_path) == {name: data}


def test_a_single_file_gets_the_schemes_name(tmp_path: Path) -> None:
    unpack(b"x", "my homework (final).py", tmp_path, room=_ROOM, file="main.py")
    assert _files(tmp_path) == {"main.py": b"x"}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\homework\\main.py", "main.py"),
        ("-rf", "_rf"),
        ("", "submission"),
        ("..", "submission"),
        ("a/", "submission"),
        ("a\0b\n.py", "a_b_.py"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}yp.py", "_yp.py"),
        ("é" * 300 + ".py", "é" * 98 + ".py"),
        ("\ud800.py", "_.py"),
    ],
)
def test_names_of_files_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_executable_files_stay_executable(tmp_path: Path) -> None:
    unpack(_zip(("run", b"1"), mode=stat.S_IFREG | 0o4755), "a.zip", tmp_path, room=_ROOM)
    assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o755


def _deep(pack: Callable[..., bytes]) -> bytes:
    return pack(("a/" * 30 + "b", b""))


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.py", b"", "is empty"),
        ("a.py", bytes(MAX_SUBMISSION + 1), "more than"),
        ("a.py", bytes(_ROOM + 1), "takes more than the [0-9]+ bytes on disk"),
        ("a.zip", _zip(("../x", b"1")), r"a name with `\.\.`.*'\.\./x'"),
        ("a.zip", _zip(("a/../../x", b"1")), r"a name with `\.\.`"),
        ("a.tar", _tar(("../x", b"1")), r"a name with `\.\.`"),
        ("a.zip", _zip(("/etc/x", b"1")), "an absolute name"),
        ("a.tar", _tar(("/etc/x", b"1")), "an absolute name"),
        ("a.zip", _zip(("C:x", b"1")), "an absolute name"),
        ("a.zip", _zip(("..\\x", b"1")), r"a name with `\.\.`"),
        ("a.zip", _zip(("C:\\x", b"1")), "an absolute name"),
        ("a.zip", _zip(("\\x", b"1")), "an absolute name"),
        ("a.zip", _zip(("a\nb", b"1")), "control characters"),
        ("a.zip", _zip(("a_b", b"1")).replace(b"a_b", b"a\0b"), "control characters"),
        ("a.tar", _tar(("a\x1bb", b"1")), "control characters"),
        ("a.zip", _zip(("é", b"1")).replace("é".encode(), b"\xff\xff"), "can't be read"),
        ("a.zip", _zip(("/".join(["n" * 190] * 6), b"1")), "more than 1000 bytes, folders included"),
        ("a.zip", _zip((".DS_Store", b"1"), ("__MACOSX/x", b"")), "no file"),
        ("a.zip", _zip(("l", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "a symbolic link"),
        ("a.tar", _tar(("l", b""), kind=tarfile.SYMTYPE, target="/etc/passwd"), "a symbolic link"),
        ("a.tar", _tar(("l", b""), kind=tarfile.LNKTYPE, target="/etc/passwd"), "a hard link"),
        ("a.tar", _tar(("l", b""), kind=tarfile.CHRTYPE), "a device"),
        ("a.tar", _tar(("l", b""), kind=tarfile.BLKTYPE), "a device"),
        ("a.tar", _tar(("l", b""), kind=tarfile.FIFOTYPE), "a named pipe"),
        ("a.zip", _zip(("l", b""), mode=stat.S_IFCHR), "a device"),
        ("a.zip", _deep(_zip), "nested more than"),
        ("a.tar", _deep(_tar), "nested more than"),
        ("a.zip", _zip(("n" * 201, b"1")), "a name of more than 200 bytes"),
        ("a.tar", _tar(("n" * 5000, b"1")), "a name of more than 200 bytes"),
        ("a.zip", _zip(("x", b"1"), ("./x", b"2")), "the same name twice"),
        ("a.tar", _tar(("x", b"1"), ("x", b"2")), "the same name twice"),
        ("a.tar", _tar(("x", b"1"), ("x/y", b"2")), "a file that is also a folder"),
        ("a.zip", _zip(), "no file"),
        ("a.tar", _tar(("d", b""), kind=tarfile.DIRTYPE), "no file"),
        ("a.zip", b"not a zip", "can't be read"),
        ("a.tar.gz", b"not a tar", "can't be read"),
        ("a.tar.xz", _tar(("x", os.urandom(5000)), mode="w:xz")[:-2000], "can't be read"),
        ("a.zip", _zip(("x", b"1" * 999))[:-30], "can't be read"),
        # tarfile itself takes the second header for the end of the archive.
        ("a.tar", _tar(("x", b"1"), ("y", b"2"))[:1200], "cut off, or damaged: truncated header"),
        ("a.tar.gz", gzip.compress(_tar(("x", b"1"), ("y", b"2"))[:1024] + b"\1" * 512), "cut off, or damaged"),
        ("a.tar", _sparse("0,1,"), "it is damaged \\("),
    ],
)
def test_unsafe_and_broken_archives_are_refused(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    inside = tmp_path / "in" / "here"
    inside.mkdir(parents=True)
    with pytest.raises(SubmissionRefused, match=why):
        unpack(data, name, inside, room=_ROOM)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(inside)] == []


def _nested(depth: int) -> bytes:
    data = _zip(("main.py", b"1"))
    for _ in range(depth):
        data = _zip(("a.zip", data))
    return data


def test_archives_in_archives_are_unpacked_to_a_depth(tmp_path: Path) -> None:
    unpack(_nested(2), "a.zip", tmp_path, room=_ROOM)
    assert _files(tmp_path) == {"main.py": b"1"}
    (tmp_path / "main.py").unlink()
    with pytest.raises(SubmissionRefused, match="archives nested more than 3 deep"):
        unpack(_nested(3), "a.zip", tmp_path, room=_ROOM)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(_zip(("a", bytes(999)), ("b", bytes(999))))
    at = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, at + 42, 0)  # the second one's header is the first one's
    with pytest.raises(SubmissionRefused, match="entries overlap"):
        unpack(bytes(data), "a.zip", tmp_path, room=_ROOM)


def _pax(body: bytes) -> bytes:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def test_a_header_that_costs_much_time_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(_pax(b"1" * 8_000_000) + _tar(("x", b"1")))
    with pytest.raises(SubmissionRefused, match="a header takes more room"):
        unpack(data, "a.tgz", tmp_path, room=_ROOM)


def test_headers_that_cost_much_time_together_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_LEAST_SECONDS", 2)
    # Refused by the time limit if Python's tarfile is slow with them, otherwise by the limit of size.
    data = gzip.compress(b"".join(_pax(b"1" * 8000) + _tar((f"x{n}", b""))[:512] for n in range(2000)))
    with pytest.raises(SubmissionRefused, match=rf"within bounds: .* (?:{_STOPPED})|more room"):
        unpack(data, "a.tgz", tmp_path, room=_ROOM)


def _needs_4_gib() -> bytes:
    """Write a zip with LZMA that claims a dictionary of 4 GiB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x", b"1" * 999)
    data = bytearray(packed.getvalue())
    struct.pack_into("<I", data, 30 + len("x") + 5, 0xFFFFFFFF)  # the size in the LZMA properties
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("a.tgz", lambda: gzip.compress(b"") * 800_000, f"empty file|{_STOPPED}"),  # members without content
        ("a.tgz", lambda: gzip.compress(b"".join(_pax(b"") for _ in range(3000))), "nested too deeply"),
        ("a.zip", _needs_4_gib, "too much memory"),
    ],
    ids=["empty members", "a chain of headers", "a dictionary of 4 GiB"],
)
def test_archives_that_cost_much_are_refused(tmp_path: Path, name: str, make: Callable[[], bytes], why: str) -> None:
    with pytest.raises(SubmissionRefused, match=why):
        unpack(make(), name, tmp_path, room=_ROOM)


def test_archives_are_read_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (zipfile, tarfile):
        monkeypatch.setattr(module, "ZipFile" if module is zipfile else "open", None)
    unpack(_GOOD[0][1], "a.zip", tmp_path, room=_ROOM)
    assert set(_files(tmp_path)) == {"main.py", "lib/x.py"}


def test_without_bubblewrap_archives_are_read_in_a_bounded_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    _bubblewrap.bubblewrap.cache_clear()
    try:
        unpack(_GOOD[0][1], "a.zip", tmp_path, room=_ROOM)
        with pytest.raises(SubmissionRefused, match="a header takes more room"):
            unpack(_pax(b"1" * 8_000_000), "a.tar", tmp_path, room=_ROOM)
    finally:
        _bubblewrap.bubblewrap.cache_clear()
    assert set(_files(tmp_path)) == {"main.py", "lib/x.py"}


def test_a_damaged_checksum_is_seen(tmp_path: Path) -> None:
    data = bytearray(_zip(("x", b"1" * 999)))
    data[14] ^= 1  # in the local header; the size in the directory counts
    data[data.index(b"PK\1\2") + 16] ^= 1
    with pytest.raises(SubmissionRefused, match=r"can't be read.*CRC"):
        unpack(bytes(data), "a.zip", tmp_path, room=_ROOM)


def test_an_encrypted_one_is_refused(tmp_path: Path) -> None:
    data = bytearray(_zip(("x", b"1")))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(SubmissionRefused, match="encrypted"):
        unpack(bytes(data), "a.zip", tmp_path, room=_ROOM)


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_a_bomb_of_zeros_is_stopped_at_the_room(tmp_path: Path, kind: str) -> None:
    zeros = bytes(64 * 1024 * 1024)
    data = _zip(("x", zeros)) if kind == "a.zip" else _tar(("x", zeros), mode="w:" + kind.rsplit(".", 1)[1])
    assert len(data) < 100_000
    with pytest.raises(SubmissionRefused, match=r"takes more than the [0-9]+ bytes on disk"):
        unpack(data, kind, tmp_path, room=_ROOM)
    assert _size_on_disk(tmp_path) <= _ROOM + 65536


def test_a_zip_that_lies_about_its_size_is_stopped_too(tmp_path: Path) -> None:
    data = bytearray(_zip(("x", bytes(64 * 1024 * 1024))))
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 10)
    with pytest.raises(SubmissionRefused):
        unpack(bytes(data), "a.zip", tmp_path, room=_ROOM)
    assert _size_on_disk(tmp_path) <= _ROOM + 65536


def test_a_tar_of_headers_alone_is_stopped(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 10**9
    data = gzip.compress(header.tobuf() + bytes(64 * 1024 * 1024))
    with pytest.raises(SubmissionRefused, match="a header takes more room"):
        unpack(data, "a.tgz", tmp_path, room=_ROOM)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_SPARSE
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[386:410] = b"00000000000\0" * 2  # no data at offset 0
    raw[483:495] = b"77777777777\0"  # the claimed size
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    with pytest.raises(SubmissionRefused, match="a sparse file"):
        unpack(bytes(raw) + bytes(1024), "a.tar", tmp_path, room=_ROOM)


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_many_entries_are_refused(tmp_path: Path, pack: Callable[..., bytes]) -> None:
    data = pack(*((f"d/{n}", b"") for n in range(MAX_ENTRIES + 1)))
    with pytest.raises(SubmissionRefused, match="more than 2000 entries"):
        unpack(data, "a.zip" if pack is _zip else "a.tar", tmp_path, room=1 << 30)


def test_files_count_as_the_blocks_they_take(tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match=r"takes more than the [0-9]+ bytes on disk"):
        unpack(_zip(*((f"{n}", b"") for n in range(1100))), "a.zip", tmp_path, room=_ROOM)


@settings(max_examples=30)  # each example starts a sandbox
@given(st.sampled_from(_GOOD), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_ones_are_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, good: tuple[str, bytes], damage: list[tuple[float, int]]
) -> None:
    name, data = good[0], bytearray(good[1])
    for where, value in damage:
        data[int(where * (len(data) - 1))] = value
    folder = tmp_path_factory.mktemp("damaged")
    try:
        unpack(bytes(data), name, folder, room=_ROOM)
    except SubmissionRefused:
        return
    assert _files(folder)
