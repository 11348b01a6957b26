"""TLS contexts from the certificate parameters of a URL."""

from __future__ import annotations

import ssl

from rabbitry.amqp.client.url import BrokerURL
from rabbitry.runtime.tls import load_authorities, load_certificate


def make_context(url: BrokerURL) -> ssl.SSLContext:
    """Return the TLS context for a URL. Reads files, so it must not run in the event loop's thread.

    The broker's certificate and host name are checked unless the URL has verify=verify_none. Raises UsageError for an
    unusable file; the text has the reason.
    """
    if url.cacertfile is None:
        context = ssl.create_default_context()
    else:
        context = load_authorities(_trusting, url.cacertfile, option="cacertfile")
    if not url.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certfile is not None:
        load_certificate(context, url.certfile, url.keyfile, options=("certfile", "keyfile"))
    return context


def _trusting(file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file)
