"""Client and flow need nothing that only POSIX has: they work where its modules and functions are absent."""

import subprocess
import sys

from tests.support import commands


def test_client_and_flow_run_without_what_only_posix_has(embedded_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.portable_program", embedded_url],
        capture_output=True, text=True, timeout=150, env=commands.environment({}), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "x12 y\n\n"), done.stderr
