"""The folder of one marking, and files in it readable for the sandbox's user."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Create a folder that only this user can enter, with an empty folder `submission`; remove it at the end.

    Its content is mounted in the sandbox; other users' processes can't see it.
    """
    folder = Path(tempfile.mkdtemp(prefix="rabbitry-marking-"))
    try:
        put(folder, "submission")
        yield folder
    finally:
        shutil.rmtree(folder)


def put(folder: Path, name: str, content: bytes | None = None) -> None:
    """Write a file or create a folder that the sandbox's user can read, for any umask."""
    path = folder / name
    if content is None:
        path.mkdir()
        path.chmod(0o755)
    else:
        path.write_bytes(content)
        path.chmod(0o644)
