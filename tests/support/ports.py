"""Free TCP ports on the loopback interface for servers that must be told their port."""

import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator

# Below the range from which Linux takes ports for outgoing connections (32768 to 60999), so that a
# port found free is not taken by somebody's connection before its server listens.
_FIRST, _LAST = 20000, 31999


@functools.cache
def _own_ports() -> Iterator[int]:
    """Yield the ports of this process without end: each of the processes that share the tests has others.

    One after the other: a server may take seconds until it listens, and its port is not given to another one meanwhile.
    Other runs on this machine begin elsewhere.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    count = max(1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    ports = range(_FIRST + (int(worker) if worker.isdecimal() else 0) % count, _LAST + 1, count)
    begin = random.randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


os.register_at_fork(after_in_child=_own_ports.cache_clear)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now, and was not returned lately.

    Raises OSError when 100 of them are all taken.
    """
    for _ in range(100):
        port = next(_own_ports())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free TCP port between {_FIRST} and {_LAST} on 127.0.0.1")
