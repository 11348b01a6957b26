"""The public authorities of TLS, loaded once for all HTTP clients of a process.

httpx loads them for each client and each `httpx.get`, which takes 35 ms of CPU, also if it speaks plain HTTP.
"""

import functools
import os
import ssl

import httpx
from httpx._transports import default


@functools.cache
def _public() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _context(
    verify: ssl.SSLContext | str | bool = True, cert: httpx._types.CertTypes | None = None, trust_env: bool = True
) -> ssl.SSLContext:
    if verify is True and cert is None and not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys():
        return _public()
    return httpx.create_ssl_context(verify, cert, trust_env)


def share() -> None:
    """Make all clients of this process, and of what it forks, share the authorities."""
    _public()
    assert hasattr(default, "create_ssl_context")
    default.create_ssl_context = _context
