"""The folder of one marking, and files in it that the sandbox's user can read."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Make a folder that only this user can enter, with the empty folder `submission` in it; it is removed at the end.

    The sandbox is shown what is in it; processes of other users are not.
    """
    folder = Path(tempfile.mkdtemp(prefix="rabbitry-marking-"))
    try:
        put(folder, "submission")
        yield folder
    finally:
        shutil.rmtree(folder)


def put(folder: Path, name: str, content: bytes | None = None) -> None:
    """Write a file, or make a folder, that the sandbox's user can read whatever the umask is."""
    path = folder / name
    if content is None:
        path.mkdir()
        path.chmod(0o755)
    else:
        path.write_bytes(content)
        path.chmod(0o644)
