"""Free TCP ports on the loopback interface for servers that must be told their port."""

import random
import socket

# Below the range from which Linux takes ports for outgoing connections (32768 to 60999), so that a
# port found free is not taken by somebody's connection before its server listens.
_FIRST, _LAST = 20000, 31999


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment.

    Raises OSError when 100 random ones are all taken.
    """
    for _ in range(100):
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free TCP port between {_FIRST} and {_LAST} on 127.0.0.1")
