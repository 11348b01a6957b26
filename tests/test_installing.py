"""What Rabbitry says to install, in each way in which it may have been installed."""

import importlib.metadata
import json
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from rabbitry._installing import how_to_install
from rabbitry.exceptions import UsageError
from rabbitry.testing import RunningBroker


class _Installed(Distribution):
    """A distribution whose installer left these files."""

    def __init__(self, **files: str) -> None:
        self._files = {"METADATA": "Metadata-Version: 2.1\nName: rabbitry\nVersion: 1.2.3\n"} | files

    def read_text(self, filename: str) -> str | None:
        return self._files.get(filename)

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


def _url(url: str, **more: object) -> dict[str, str]:
    return {"direct_url.json": json.dumps({"url": url, **more})}


_FILE = "file:/" + "/"
_PIP = {"INSTALLER": "pip\n"}
_UV = {"INSTALLER": "uv\n"}


@pytest.mark.parametrize(
    ("files", "mark", "command"),
    [
        (_PIP, "", "PYTHON -m pip install 'rabbitry[all]==1.2.3'"),
        ({}, "", "PYTHON -m pip install 'rabbitry[all]==1.2.3'"),
        (_UV, "", "uv pip install --python PYTHON 'rabbitry[all]==1.2.3'"),
        (_PIP, "pipx_metadata.json", "pipx install --force 'rabbitry[all]==1.2.3'"),
        (_UV, "uv-receipt.toml", "uv tool install --force 'rabbitry[all]==1.2.3'"),
        (
            _PIP | _url(_FILE + "/clones/my%20clone", dir_info={"editable": True}),
            "",
            "PYTHON -m pip install -e '/clones/my clone[all]'",
        ),
        (_PIP | _url(_FILE + "/clones/clone", dir_info={}), "", "PYTHON -m pip install '/clones/clone[all]'"),
        (
            _PIP | _url("https://git.example/r.git", vcs_info={"vcs": "git", "commit_id": "abc"}),
            "",
            "PYTHON -m pip install 'rabbitry[all] @ git+https://git.example/r.git@abc'",
        ),
        (
            _PIP | _url("https://files.example/r.whl", archive_info={}),
            "",
            "PYTHON -m pip install 'rabbitry[all] @ https://files.example/r.whl'",
        ),
    ],
)
def test_the_command_fits_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], mark: str, command: str
) -> None:
    if mark:
        (tmp_path / mark).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "PYTHON")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: _Installed(**files))
    assert how_to_install("all") == command


@pytest.mark.parametrize("name", ["uvicorn", "starlette"])
def test_a_management_api_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("rabbitry.broker.broker.find_spec", lambda wanted: None if wanted == name else object())
    with (
        RunningBroker() as broker,
        pytest.raises(UsageError, match=rf"'{name}', which is not installed.*extra 'broker'"),
    ):
        _ = broker.management_url
