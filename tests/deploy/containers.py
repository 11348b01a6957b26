"""Services of compose.yaml as processes that see what their containers would: files, user, rights, names, network.

bubblewrap stands for the container engine. The image's own files are those that the tests run with.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.deploy.files import ROOT, Service, instruction
from tests.deploy.networks import Namespace
from tests.support.waiting import eventually_blocking

_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_START = 90.0


def why_missing() -> str | None:
    """Why no container can be played here, or None when it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (as root: scripts/system-deps)"
    if not (ROOT / "src/rabbitry/__init__.py").stat().st_mode & 0o004:
        return "the containers' user could not read this folder's files (umask)"
    return None


class Containers:
    """What the containers share: the names of each other, their volumes, and the folder of compose.yaml."""

    def __init__(self, deploy: Path, folder: Path) -> None:
        self._deploy = deploy
        self._folder = folder
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._hosts.chmod(0o644)
        self.user = int(instruction("USER").partition(":")[0])

    def name(self, name: str, address: str) -> None:
        """Let the containers that start from now on find another by its name."""
        with self._hosts.open("a") as file:
            file.write(f"{address} {name}\n")

    def start(self, service: Service, namespace: Namespace, command: list[str]) -> "Container":
        """Run a command with what the service has."""
        output = self._folder / f"{service.name}.{time.monotonic_ns()}"
        with output.open("wb") as file, namespace.entered():
            process = subprocess.Popen(
                [*self._bubblewrap(service), "--", *self._as_user(service), *command],
                env={"PATH": f"{sys.prefix}/bin:/usr/bin", "HOME": instruction("WORKDIR")} | service.environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return Container(process, output)

    def _as_user(self, service: Service) -> list[str]:
        assert service.fields["cap_drop"] == ["ALL"]
        ids = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        # Parts of bubblewrap's own /proc are covered, which keeps others from being mounted, as engines' do.
        return ["sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh", "setpriv", *ids, *rights, "--"]

    def _bubblewrap(self, service: Service) -> list[str]:
        home = instruction("WORKDIR")
        argv = ["bwrap", "--die-with-parent", "--unshare-ipc", "--unshare-pid"]
        argv += ["--unshare-uts", "--hostname", service.hostname]
        argv += ["--cap-add", "ALL"]  # setpriv gives them up
        argv += ["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--ro-bind", str(self._hosts), "/etc/hosts"]
        for name in _TOP:
            path = Path("/", name)
            if path.is_symlink():
                argv += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                argv += ["--ro-bind", str(path), str(path)]
        argv += ["--dir", "/proc", "--ro-bind", "/sys", "/sys", "--dev", "/dev"]
        for place in service.fields["tmpfs"]:
            argv += ["--perms", "1777", "--tmpfs", place]
        for source in (Path(sys.base_prefix), Path(sys.prefix), ROOT / "src"):
            if not source.is_relative_to("/usr"):
                argv += _bind(source, str(source), read_only=True)
        argv += [*_parents(Path(home)), "--perms", "0755", "--dir", home]
        for mount in service.mounts:
            source = self._volume(mount.source) if mount.volume else Path(mount.source)
            argv += _bind(source, mount.target, read_only=mount.read_only)
        assert service.fields["read_only"] is True
        return [*argv, "--remount-ro", "/", "--chdir", home]

    def _volume(self, name: str) -> Path:
        """A volume that is new has the owner of the image's folder that it is mounted on."""
        place = self._folder / f"volume-{name}"
        if not place.exists():
            place.mkdir(mode=0o700)
            os.chown(place, self.user, self.user)
        return place


class Container:
    """A command in a container."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def output(self) -> str:
        """What it has printed and logged so far."""
        return self._output.read_text(errors="replace")

    def wait(self, within: float) -> int:
        """Wait until it has ended, and give its exit code."""
        return self._process.wait(within)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, within: float) -> int:
        """End it as `docker compose stop` does, and give its exit code."""
        # bubblewrap would die of the signal; its only child is the namespace's init, and that one's is the command.
        [init] = psutil.Process(self._process.pid).children()
        [command] = init.children()
        command.send_signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """End it at once, where it still runs; nothing of it is left."""
        started = psutil.Process(self._process.pid).children(recursive=True) if self.is_running() else []
        self._process.kill()
        self._process.wait()
        _, left = psutil.wait_procs(started, timeout=_START)
        assert left == [], "processes of a container outlive it"

    def wait_for(self, text: str, within: float = _START) -> None:
        """Wait until it has printed something."""

        def said() -> bool:
            assert text in self.output or self.is_running(), self.output
            return text in self.output

        eventually_blocking(said, f"{text!r} in {self._output.name}", within=within)


def _bind(source: Path, target: str, *, read_only: bool) -> list[str]:
    return [*_parents(Path(target)), "--ro-bind" if read_only else "--bind", str(source), target]


def _parents(path: Path) -> list[str]:
    """Make the folders above one, for everybody to pass."""
    return [word for folder in reversed(path.parents[:-1]) for word in ("--perms", "0755", "--dir", str(folder))]
