"""What is compared of a submission: a file, the sources of an archive, the code of a notebook."""

import io
import json
import tempfile
import zipfile

import pytest

from rabbitry.apps.grading.exceptions import FilesError, SubmissionRefused
from rabbitry.apps.grading.similar.documents import MOST, document_of, joined


def test_a_file_is_its_text_and_what_is_no_text_is_nothing() -> None:
    found = document_of(b"x = 1\r\n", "a.py")
    assert found is not None
    assert (found.text, found.files) == ("x = 1\n", (("a.py", 0, 6),))
    assert document_of(b"\0\1\2", "a.bin") is None
    for encoding in ("utf-8", "utf-16"):
        encoded = document_of("ä = 1\r\n".encode(encoding), "a.py")
        assert encoded is not None
        assert (encoded.text, encoded.is_cut) == ("ä = 1\n", False)
    assert document_of(b"  \n", "a.py") is None


def test_an_archive_is_its_source_files_each_with_its_name() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("src/b.py", "b = 2\n")
        archive.writestr("src/a.py", "a = 1\n")
        archive.writestr("picture.png", b"\x89PNG\0")
    found = document_of(data.getvalue(), "all.zip")
    assert found is not None
    assert found.text == "===== src/a.py =====\na = 1\n\n===== src/b.py =====\nb = 2\n"
    assert [found.text[file.begin : file.end] for file in found.files] == ["a = 1\n", "b = 2\n"]
    with pytest.raises(SubmissionRefused, match="can't be read"):
        document_of(b"PK\3\4 no archive", "all.zip")


def test_an_archive_that_the_machine_can_not_unpack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(FilesError, match=r"the archive 'all.zip' can't be unpacked: .*No such file or directory"):
        document_of(b"PK\3\4", "all.zip")


def test_a_notebook_is_its_code() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["import this\n", "x = 1"]},
        {"cell_type": "code", "source": "y = 2"},
    ]
    found = document_of(json.dumps({"cells": cells}).encode(), "a.ipynb")
    assert found is not None
    assert (found.text, found.files[0].name) == ("import this\nx = 1\n\ny = 2", "a.py")
    assert document_of(b"{", "a.ipynb") is None


def test_the_pictures_of_a_notebook_leave_room_for_its_code() -> None:
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 4_000_000}}
    cells = [{"cell_type": "code", "source": "x = 1", "outputs": [picture]}, {"cell_type": "code", "source": "y = 2"}]
    notebook = json.dumps({"cells": cells}).encode()
    assert document_of(notebook + b" " * 5_000_000, "a.ipynb") is None
    found = document_of(notebook, "a.ipynb")
    assert found is not None
    assert found.text == "x = 1\n\ny = 2"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.ipynb", notebook)
        archive.writestr("b.py", "z = 3")
    found = document_of(data.getvalue(), "all.zip")
    assert found is not None
    assert [found.text[file.begin : file.end] for file in found.files] == ["x = 1\n\ny = 2", "z = 3"]


@pytest.mark.parametrize("sizes", [(MOST + 9,), (MOST - 9, 100)])
def test_the_text_of_a_submission_is_bounded(sizes: tuple[int, ...]) -> None:
    found = joined((f"{number}.py", b"x" * size) for number, size in enumerate(sizes))
    assert found is not None
    assert sum(file.end - file.begin for file in found.files) == MOST
    assert found.is_cut
    found = joined((f"{number}.py", b"x" * size) for number, size in enumerate((MOST - 100, 100)))
    assert found is not None
    assert not found.is_cut


def test_text_that_is_left_out_is_noted_wherever_it_hides() -> None:
    half, copied = "#" * (MOST // 2), "\nx = 1\n"
    hidden: list[dict[str, str]] = [  # made here, and not at collection, for their size
        {"a.py": "é" * (MOST // 2) + copied},  # fewer characters than bytes
        {"a.py": "#\r\n" * (MOST // 3) + copied},
        {"a.py": " " * MOST + copied, "b.py": "y = 2\n"},
        {"a.py": half, "b.py": half, "c.py": copied},
        {"a.ipynb": '{"cells": [{"cell_type": "code", "source": "x = 1"}]}' + " " * 5_000_000, "b.py": "y = 2\n"},
        {"a.ipynb": "{", "b.py": "y = 2\n"},
        {"a.c": "\0", "b.py": "y = 2\n"},
    ]
    for files in hidden:
        found = joined((name, text.encode()) for name, text in files.items())
        assert found is not None, [*files]
        assert found.is_cut, [*files]


def test_files_without_text_of_the_student_are_no_loss() -> None:
    files = {"__MACOSX/._b.py": b"\0\5\x16\7\0\2", "a.ipynb": b"", "b.py": b"y = 2\n", "c.py": b" \n"}
    found = joined(files.items())
    assert found is not None
    assert (found.text, found.is_cut) == ("y = 2\n", False)


def test_the_case_of_a_notebook_s_name_makes_no_difference() -> None:
    notebook = json.dumps({"cells": [{"cell_type": "code", "source": "x = 1"}]}).encode()
    found = document_of(notebook, "A.IPYNB")
    assert found is not None
    assert (found.text, found.files[0].name) == ("x = 1", "A.py")
