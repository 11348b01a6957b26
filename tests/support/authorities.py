"""The public authorities of TLS, loaded once for all HTTP clients of a process.

httpx loads them for each client and each `httpx.get`, which takes 35 ms of CPU, also if it speaks plain HTTP.
"""

import functools
import os
import ssl

import httpx
from httpx._transports import default

_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _named() -> list[str | None]:
    """Return where the environment says that the authorities are."""
    return [os.environ.get(name) for name in _NAMES]


_AT_FIRST = _named()
"""What the machine's settings say; a test may name an authority of its own."""


@functools.cache
def _public(trust_env: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


def _context(
    verify: ssl.SSLContext | str | bool = True, cert: httpx._types.CertTypes | None = None, trust_env: bool = True
) -> ssl.SSLContext:
    if verify is True and cert is None and (not trust_env or _named() == _AT_FIRST):
        return _public(trust_env)
    return httpx.create_ssl_context(verify, cert, trust_env)


def share() -> None:
    """Make all clients of this process, and of what it forks, share the authorities."""
    _public(True)
    assert hasattr(default, "create_ssl_context")
    default.create_ssl_context = _context
