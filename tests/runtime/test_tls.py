"""PEM files that can't be used: the error names the file, what is wrong, and what to do."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from rabbitry.exceptions import UsageError
from rabbitry.runtime.tls import load_authorities, load_certificate

_OPTIONS = ("--cert", "--key")


class Files:
    """A certificate `c`, its key `k`, and both in one file `both`; `other` is the key of another certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        self.certificate = issued.cert_chain_pems[0].bytes()
        self.key = issued.private_key_pem.bytes()
        self.other = authority.issue_cert("localhost").private_key_pem.bytes()

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def encrypted(self, form: serialization.PrivateFormat) -> bytes:
        key = serialization.load_pem_private_key(self.key, None)
        locked = serialization.BestAvailableEncryption(b"secret")
        return key.private_bytes(serialization.Encoding.PEM, form, locked)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("pem"))


def _error(certificate: str, key: str | None) -> str:
    with pytest.raises(UsageError) as caught:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key, options=_OPTIONS)
    assert caught.value.__cause__ is not None or "encrypted" in str(caught.value)
    text = str(caught.value)
    assert "PEM lib" not in text
    assert "\n" not in text
    return text


def _damaged(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return b"".join([*lines[:2], b"A" * 64 + b"\n", *lines[3:]])


def test_usable_files_are_loaded(files: Files) -> None:
    certificate, key = files.write("c", files.certificate), files.write("k", files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, certificate, key, options=_OPTIONS)
    load_certificate(context, files.write("both", files.key + files.certificate), None, options=_OPTIONS)
    load_authorities(context.load_verify_locations, certificate, option="--ca")
    assert context.cert_store_stats()["x509"] == 1


def test_a_key_of_another_certificate_is_told_apart(files: Files) -> None:
    certificate, key = files.write("c", files.certificate), files.write("k", files.other)
    text = _error(certificate, key)
    assert text.startswith(f"--key {key!r} is not the key of the first certificate in --cert {certificate!r}: give")


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("is_apart", [True, False])
def test_an_encrypted_key_is_refused_without_a_question(
    files: Files, form: serialization.PrivateFormat, is_apart: bool
) -> None:
    locked = files.encrypted(form)
    if is_apart:
        name = files.write("k", locked)
        text = _error(files.write("c", files.certificate), name)
        assert text.startswith(f"--key {name!r} holds an encrypted key: decrypt it")
    else:
        name = files.write("c", files.certificate + locked)
        assert _error(name, None).startswith(f"--cert {name!r} holds an encrypted key: decrypt it")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda files: b"", "no PEM"),
        (lambda files: b"hello\n", "no PEM"),
        (lambda files: ssl.PEM_cert_to_DER_cert(files.certificate.decode()), "no PEM"),
        (lambda files: files.key, "a .*private key"),
    ],
    ids=["empty", "text", "DER", "key"],
)
def test_a_file_without_a_certificate_is_named(files: Files, content: Callable[[Files], bytes], what: str) -> None:
    wrong, key = files.write("wrong", content(files)), files.write("k", files.key)
    expected = rf"{wrong}' holds {what} and no certificate: give a PEM file.*openssl"
    with pytest.raises(UsageError, match=f"^--ca '{expected}"):
        load_authorities(lambda file: ssl.create_default_context(cafile=file), wrong, option="--ca")
    with pytest.raises(UsageError, match=f"^--cert '{expected}"):
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), wrong, key, options=_OPTIONS)


def test_a_file_without_a_key_is_named(files: Files) -> None:
    certificate, empty = files.write("c", files.certificate), files.write("empty", b"")
    assert _error(certificate, None).endswith("holds a certificate and no private key: give its key with --key")
    assert _error(certificate, empty).startswith(f"--key {empty!r} holds no PEM and no private key: give a PEM file")
    assert _error(certificate, certificate).startswith(f"--key {certificate!r} holds a certificate and no private key")


def test_damage_is_reported_by_file(files: Files) -> None:
    certificate, key = files.write("c", files.certificate), files.write("k", files.key)
    for broken in (_damaged(files.certificate), files.certificate[:300]):
        name = files.write("damaged", broken)
        expected = f"{name!r} holds a damaged certificate: copy the file anew"
        assert _error(name, key) == f"--cert {expected}"
        with pytest.raises(UsageError, match=r"^--ca .* holds a damaged certificate"):
            load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations, name, option="--ca")
    for broken in (_damaged(files.key), files.key[:100]):
        name = files.write("damaged", broken)
        assert _error(certificate, name) == f"--key {name!r} holds a damaged key: copy the file anew"


@pytest.mark.parametrize(
    "prepare",
    [lambda path: "No such file or directory", lambda path: path.mkdir() or "Is a directory"],
    ids=["missing", "directory"],
)
def test_a_file_that_cannot_be_read_is_named(files: Files, tmp_path: Path, prepare: Callable[[Path], str]) -> None:
    certificate, key, wrong = files.write("c", files.certificate), files.write("k", files.key), tmp_path / "wrong"
    why = prepare(wrong)
    assert _error(str(wrong), key) == f"--cert '{wrong}' can't be read: {why}"
    assert _error(certificate, str(wrong)) == f"--key '{wrong}' can't be read: {why}"
    with pytest.raises(UsageError) as caught:
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations, str(wrong), option="--ca")
    assert str(caught.value) == f"--ca '{wrong}' can't be read: {why}"


def test_a_file_that_this_user_may_not_read_is_named(files: Files, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o000)
    user = os.geteuid()
    if user == 0:  # who may read any file
        os.seteuid(65534)
    try:
        text = _error(str(wrong), None)
    finally:
        os.seteuid(user)
    assert text == f"--cert '{wrong}' can't be read: Permission denied: let this user read it"


def test_a_pipe_is_read_once(files: Files) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"no key")
    os.close(writing)
    try:
        assert _error(files.write("c", files.certificate), f"/dev/fd/{reading}").endswith("is not what is needed")
    finally:
        os.close(reading)


def test_a_file_name_with_a_nul_is_refused(files: Files) -> None:
    assert "embedded null" in _error(files.write("c", files.certificate), "k\0")
