"""A name for this machine that stays the same over restarts and tells nothing about it."""

from __future__ import annotations

import functools
import hashlib
import hmac
from pathlib import Path

_PURPOSE = b"rabbitry.monitor"
_SEEDS = ("etc/machine-id", "var/lib/dbus/machine-id", "proc/sys/kernel/random/boot_id")
"""The first file with content counts. A container usually has only the last one, which changes with each boot."""


@functools.cache
def machine_id(root: Path = Path("/")) -> str:
    """Return 16 hexadecimal digits that tell this machine from others of its name; empty if nothing does.

    It is a keyed hash, since machine-id(5) asks to keep the id itself from the network. The hardware address of the
    first network card goes into it too: cloned virtual machines and SD cards share their machine-id.
    """
    seed = next((text for name in _SEEDS if (text := _text(root / name)) and text != "uninitialized"), "")
    if not seed:
        return ""
    return hmac.new(seed.encode(), _PURPOSE + _card_address(root).encode(), hashlib.sha256).hexdigest()[:16]


def _card_address(root: Path) -> str:
    """Return the address of the first network card that has one of its own, empty if none has."""
    found: list[tuple[int, str]] = []
    try:
        interfaces = list((root / "sys/class/net").iterdir())
    except OSError:
        return ""
    for interface in interfaces:
        # 0 is NET_ADDR_PERM: neither random nor set by somebody, so that it is the same after the next boot.
        if (interface / "device").exists() and _text(interface / "addr_assign_type") == "0":
            index = _text(interface / "ifindex")
            found.append((int(index) if index.isdigit() else 0, _text(interface / "address")))
    return min(found, default=(0, ""))[1]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
