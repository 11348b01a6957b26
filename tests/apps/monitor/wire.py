"""AMQP methods that a program sent to a broker, read from the bytes that passed a proxy."""

import struct

from rabbitry.amqp.client import BrokerURL, parse_url
from tests.support.proxy import FaultProxy, Way

_METHODS = {
    (10, 50): "connection.close",
    (20, 40): "channel.close",
    (50, 10): "queue.declare",
    (60, 20): "basic.consume",
    (60, 30): "basic.cancel",
    (60, 40): "basic.publish",
    (60, 70): "basic.get",
}


class Tap:
    """Collects the bytes that one client sends; the `tap` of a `FaultProxy`."""

    def __init__(self) -> None:
        self._sent = bytearray()

    def __call__(self, way: Way, data: bytes) -> None:
        if way is Way.TO_SERVER:
            self._sent += data

    @property
    def methods(self) -> list[str]:
        """Return the names of the methods of `_METHODS` that were sent, in order."""
        found = []
        at = 8  # after the protocol header
        while at + 7 <= len(self._sent):
            kind, _, size = struct.unpack_from(">BHI", self._sent, at)
            if kind == 1 and at + 11 <= len(self._sent):
                name = _METHODS.get(struct.unpack_from(">HH", self._sent, at + 7))
                found += [name] if name else []
            at += size + 8
        return found


def through(proxy: FaultProxy, url: str) -> BrokerURL:
    """Return the URL of a broker behind a proxy."""
    return parse_url(url)._replace(hosts=(("127.0.0.1", proxy.port),))


def as_options(url: str | BrokerURL) -> list[str]:
    """Return a broker in the contract's spelling: `-b`, `-p`."""
    parsed = parse_url(url) if isinstance(url, str) else url
    [(host, port)] = parsed.hosts
    return ["-b", f"{host}:{port}", "-p", parsed.virtual_host]
