"""Skipping or failing tests that need a program which is not installed."""

import os
from pathlib import Path

import pytest

STRICT = os.environ.get("RABBITRY_STRICT") == "1"
# The shell is Chromium without a user interface: it takes a third less CPU to open a page. Debian's script of its name
# in /usr/bin starts it as a child, which a signal to the script would not reach.
_SHELL = Path("/usr/lib/chromium/chromium-headless-shell")
CHROMIUM = _SHELL if _SHELL.exists() else Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def require(missing: str | None) -> None:
    """Skip the test when something is missing; fail it instead in strict mode (RABBITRY_STRICT=1).

    `missing` says what is not there and how to get it, or is None when all is there.
    """
    if missing is None:
        return
    if STRICT:
        pytest.fail(f"strict mode: {missing}", pytrace=False)
    pytest.skip(missing)


def why_no_chromium() -> str | None:
    """Why no browser can be started here, or None when it can."""
    return None if CHROMIUM.exists() else "chromium is not installed (as root: scripts/system-deps)"
