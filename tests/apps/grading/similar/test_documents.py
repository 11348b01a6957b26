"""What is compared of a submission: a file, the sources of an archive, the code of a notebook."""

import io
import json
import tempfile
import zipfile

import pytest

from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.similar.documents import MOST, document_of, joined


def test_a_file_is_its_text_and_what_is_no_text_is_nothing() -> None:
    found = document_of(b"x = 1\r\n", "a.py")
    assert found is not None
    assert (found.text, found.files) == ("x = 1\n", (("a.py", 0, 6),))
    assert document_of(b"\0\1\2", "a.bin") is None
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
    assert document_of(b"PK\3\4 no archive", "all.zip") is None


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
