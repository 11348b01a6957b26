"""Network namespaces without names, on a bridge in one of their own: gone with what runs in them, however that ends.

Nothing of the machine's own network is touched. Linux, root and iproute2 are needed.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, sched.h
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def why_missing() -> str | None:
    """Why no networks can be made here, or None when they can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    if shutil.which("ip") is None:
        return "iproute2 is not installed (as root: scripts/system-deps)"
    try:
        with Network() as network:
            network.join()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces can't be made here: {error}"
    return None


class Namespace:
    """A network of its own, in which only `lo` is, and that is up. `close` it."""

    def __init__(self) -> None:
        with _back_afterwards():
            _call(_libc.unshare, _NEW_NETWORK)
            self.fd = os.open(_OWN, os.O_RDONLY)
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        """Let it go; it is gone when no process is in it any more."""
        os.close(self.fd)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread be in it: its new sockets, and the processes that it starts."""
        with _back_afterwards():
            _call(_libc.setns, self.fd, _NEW_NETWORK)
            yield

    def ip(self, *arguments: str, fds: tuple[int, ...] = ()) -> None:
        """Run `ip` in it. Raises CalledProcessError."""
        with self.entered():
            subprocess.run(["ip", *arguments], pass_fds=fds, capture_output=True, timeout=90, check=True)


class Network:
    """A bridge, and the namespaces that joined it. A context manager.

    `outside` is where the bridge is, with an address of its own, as the machine is that runs containers.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._joined = 1

    def __enter__(self) -> "Network":
        self.outside = self._new()
        try:
            self.outside.ip("link", "add", "bridge", "type", "bridge")
            self.outside.ip("addr", "add", self._address(1), "dev", "bridge")
            self.outside.ip("link", "set", "bridge", "up")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def join(self) -> tuple[Namespace, str]:
        """Return a new namespace on the bridge, and its address."""
        self._joined += 1
        address, port = self._address(self._joined), f"port{self._joined}"
        joined = self._new()
        there = f"/proc/self/fd/{joined.fd}"
        pair = ("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", there)
        self.outside.ip(*pair, fds=(joined.fd,))
        self.outside.ip("link", "set", port, "master", "bridge", "up")
        joined.ip("addr", "add", address, "dev", "eth0")
        joined.ip("link", "set", "eth0", "up")
        return joined, address.partition("/")[0]

    def _new(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made

    @staticmethod
    def _address(number: int) -> str:
        return f"10.88.0.{number}/24"


@contextlib.contextmanager
def _back_afterwards() -> Iterator[None]:
    before = os.open(_OWN, os.O_RDONLY)
    try:
        yield
    finally:
        _call(_libc.setns, before, _NEW_NETWORK)
        os.close(before)


def _call(function: "ctypes._NamedFuncPointer", *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")
