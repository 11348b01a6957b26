"""Counted things, and why a file can't be used."""

import ssl
from pathlib import Path

import pytest

from rabbitry._words import counted, reason
from tests.support import commands


@pytest.mark.parametrize(("number", "words"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages")])
def test_a_thing_is_counted(number: int, words: str) -> None:
    assert counted(number, "message") == words


def test_a_reason_repeats_no_name_and_shows_no_byte(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_text()
    assert reason(missing.value) == "No such file or directory"
    assert reason(missing.value, is_named=False) == f"{tmp_path}/missing: No such file or directory"
    with pytest.raises(UnicodeDecodeError) as binary:
        b"\xffsecret".decode()
    assert reason(binary.value) == "it is not UTF-8 text"
    (tmp_path / "broken.pem").write_text("broken")
    with pytest.raises(ssl.SSLError) as broken:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "broken.pem")
    assert "_ssl.c" not in reason(broken.value)
    assert reason(OSError("said otherwise")) == "said otherwise"


@pytest.mark.parametrize(
    "arguments",
    [
        ("broker", "--user", "ann", "--password-file", "{file}"),
        ("broker", "--port", "0", "--memory", "--tls-cert", "{file}"),
        ("monitor", "publish", "-c", "ann", "--password-file", "{file}"),
        ("monitor", "publish", "--env-file", "{file}"),
        ("web", "--env-file", "{file}"),
        ("grading", "run", "--config", "{file}"),
        ("grading", "submit", "{file}", "--module", "data_mining", "--student", "1"),
        ("monitor", "stats", "-k", "a", "--broker", "amqps://127.0.0.1:1/?cacertfile={file}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_can_not_be_read_is_named_once_with_the_reason(
    tmp_path: Path, kind: str, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "folder"
    file.mkdir()
    path = str(file if kind == "folder" else tmp_path / "missing")
    done = commands.run(*(word.format(file=path) for word in arguments))
    assert done.returncode == 2, done.stderr
    assert "Errno" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count(path) == 1
    assert done.stderr.count("\n") == 1
