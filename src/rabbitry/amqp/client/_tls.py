"""TLS for connections: what a URL says of certificates becomes an SSL context."""

import ssl

from rabbitry._words import reason
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.exceptions import UsageError


def make_context(url: BrokerURL) -> ssl.SSLContext:
    """Make the context for a URL's connections; reads files, so not for the event loop's thread.

    The broker's certificate and its host name are checked unless the URL says verify=verify_none. Raises
    UsageError for a file that can't be read or holds no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=url.cacertfile)
    except OSError as error:  # SSLError is one too
        raise UsageError(f"cacertfile {url.cacertfile}: {reason(error)}") from error
    if not url.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certfile is not None:
        try:
            context.load_cert_chain(url.certfile, url.keyfile)
        except OSError as error:
            raise UsageError(
                f"certfile {url.certfile}, keyfile {url.keyfile or 'the same'}: {reason(error)}"
            ) from error
    return context
