"""Certificates and keys from PEM files. An error names the file at fault, what is wrong with it, and what to do."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from rabbitry._words import reason
from rabbitry.exceptions import UsageError

_LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a file that are read to find out what is wrong with it. A bundle of all public authorities has 0.3 MB."""
_LABEL: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]{1,40})-----", re.MULTILINE)
_NO_PEM: Final = (
    "give a PEM file, which has lines of -----BEGIN …-----; "
    "a DER file becomes one with: openssl x509 -inform der -in FILE -out FILE.pem"
)

T = TypeVar("T")


def load_certificate(context: ssl.SSLContext, certificate: str, key: str | None, *, options: tuple[str, str]) -> None:
    """Load a certificate, its chain and its key into a context. Reads files: not for the thread of an event loop.

    Args:
        context: The context.
        certificate: The file of the certificate and its chain.
        key: The file of its key; None if that is in `certificate` too.
        options: What the user calls the two files, e.g. `--tls-cert` and `--tls-key`.

    Raises:
        UsageError: A file can't be used.
    """
    certificates, keys = f"{options[0]} {certificate!r}", f"{options[0 if key is None else 1]} {key or certificate!r}"

    def refuse() -> NoReturn:  # without it, OpenSSL asks for the password on the terminal
        raise UsageError(
            f"{keys} holds an encrypted key: decrypt it into a file that only this user can read, with: "
            "openssl pkey -in FILE -out FILE.key"
        )

    try:
        context.load_cert_chain(certificate, key, refuse)
    except (OSError, ValueError) as error:  # SSLError is an OSError; a ValueError is a name with a NUL
        found = _labels(certificates, certificate, error), _labels(keys, key or certificate, error)
        if not any(label.endswith("CERTIFICATE") for label in found[0]):
            raise UsageError(f"{certificates} holds {_content(found[0])} and no certificate: {_NO_PEM}") from error
        if not any(label.endswith("PRIVATE KEY") for label in found[1]):
            todo = f"give its key with {options[1]}" if key is None else _NO_PEM
            raise UsageError(f"{keys} holds {_content(found[1])} and no private key: {todo}") from error
        raise UsageError(_damaged(certificates, certificate, keys, error, options[1])) from error


def load_authorities(load: Callable[[str], T], file: str, *, option: str) -> T:
    """Return what `load(file)` does: it loads the certificates of the authorities that are trusted.

    Raises:
        UsageError: The file can't be used.
    """
    try:
        return load(file)
    except (OSError, ValueError) as error:
        found = _labels(f"{option} {file!r}", file, error)
        if not any(label.endswith("CERTIFICATE") for label in found):
            raise UsageError(f"{option} {file!r} holds {_content(found)} and no certificate: {_NO_PEM}") from error
        raise UsageError(f"{option} {file!r} holds a damaged certificate: copy the file anew") from error


def _labels(named: str, file: str, cause: Exception) -> list[str]:
    """Return the labels of the PEM blocks in a file that can't be used. Raises UsageError if it can't be read."""
    try:
        if stat.S_ISFIFO(os.stat(file).st_mode):  # as of a shell's `<(…)`: what came from it is gone
            raise UsageError(f"{named} can't be used: what came from this pipe is not what is needed") from cause
        with open(file, "rb") as stream:
            return [label.decode() for label in _LABEL.findall(stream.read(_LARGEST))]
    except (OSError, ValueError) as error:
        todo = ": let this user read it" if isinstance(error, PermissionError) else ""
        raise UsageError(f"{named} can't be read: {reason(error)}{todo}") from error


def _content(labels: list[str]) -> str:
    return f"a {labels[0].lower()}" if labels else "no PEM"


def _damaged(certificates: str, certificate: str, keys: str, error: Exception, key_option: str) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return (
            f"{keys} is not the key of the first certificate in {certificates}: give the key of that certificate "
            f"({key_option}); in a chain, a program's own certificate comes first"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except OSError:
        return f"{certificates} holds a damaged certificate: copy the file anew"
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return f"{certificates} can't be used: {reason(error)}"  # a weak key or signature
    return f"{keys} holds a damaged key: copy the file anew"
