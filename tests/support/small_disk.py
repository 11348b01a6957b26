"""A file system of a few megabytes for a broker's data: it gets full, others fill it, and there is room again."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import programs

_PIECE = bytes(1 << 20)


class SmallDisk:
    """A tmpfs on `folder` in a mount namespace of its own, which lives as long as this context manager.

    Programs that are started behind `prefix` see it at `folder`; the test looks at it from outside.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        tools = ("bwrap", "nsenter")
        missing = [tool for tool in tools if shutil.which(tool) is None]
        programs.require(f"not installed (as root: scripts/system-deps): {', '.join(missing)}" if missing else None)
        mount = ["--dev-bind", "/", "/", "--size", str(megabytes * 1_000_000), "--tmpfs", str(folder)]
        # Without a namespace of processes of its own, so that $$ is the number that the test knows it by.
        self._holder = subprocess.Popen(
            ["bwrap", "--die-with-parent", *mount, "sh", "-c", "echo $$; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if not said:
            self.__exit__(None, None, None)
        self._pid = int(said)
        self._outside = Path(f"/proc/{self._pid}/root{folder}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words that stand before a command line so that the command sees this file system."""
        as_user = () if os.getuid() == 0 else ("--user", "--preserve-credentials")
        return ("nsenter", "--target", str(self._pid), *as_user, "--mount")

    @property
    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self._outside)
        return found.f_bavail * found.f_frsize

    def size(self, name: str) -> int:
        """Return the bytes that the files of a name have together; the name may be a pattern."""
        return sum(path.stat().st_size for path in self._outside.glob(name))

    def fill(self) -> None:
        """Fill the disk completely."""
        with open(self._outside / "filling", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_PIECE)  # the last one as far as there is room

    def empty(self) -> None:
        """Free the space that `fill` took."""
        (self._outside / "filling").unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()
        assert self._holder.returncode == 0
