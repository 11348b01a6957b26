"""Passwords as hashes: scrypt (RFC 7914) of the standard library, written like `$scrypt$ln=15,r=8,p=3$SALT$KEY`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import unicodedata
from typing import Final

LOG_COST: Final = 15
"""Logarithm of the cost: with _BLOCKS and _PARALLEL it is OWASP's advice, 32 MiB and about 0.3 s of CPU a password."""
_BLOCKS: Final = 8
_PARALLEL: Final = 3
_MEMORY: Final = 1 << 28
"""Bytes of memory that a hash may need. A file with a hash that needs more is refused."""
_FORM: Final = re.compile(
    r"\$scrypt\$ln=([1-9]|1[0-8]),r=([1-9]|1[0-6]),p=([1-9]|1[0-6])\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})"
)
"""Cost, block size, parallelism, 16 bytes of salt, 32 bytes of key."""


def hash_password(password: str, *, log_cost: int = LOG_COST) -> str:
    """Return the hash of a password, with a new salt. It takes 0.3 s of CPU at the default cost.

    Args:
        password: The password.
        log_cost: Logarithm of scrypt's cost.
    """
    salt = secrets.token_bytes(16)
    key = _key(password, log_cost, _BLOCKS, _PARALLEL, salt)
    return f"$scrypt$ln={log_cost},r={_BLOCKS},p={_PARALLEL}${_text(salt)}${_text(key)}"


def is_hash(text: str) -> bool:
    """Return whether a text is a hash that `is_password` can check within the limit of memory."""
    found = _FORM.fullmatch(text)
    return found is not None and _needed(int(found[1]), int(found[2])) <= _MEMORY


def is_password(password: str, hashed: str) -> bool:
    """Return whether a password has this hash. The time that it takes does not depend on the password.

    Args:
        password: The password.
        hashed: A hash that `hash_password` returned.
    """
    found = _FORM.fullmatch(hashed)
    if found is None:
        return False
    try:
        salt, key = (base64.b64decode(text + "=" * (-len(text) % 4), validate=True) for text in found.group(4, 5))
    except binascii.Error:
        return False
    return secrets.compare_digest(_key(password, int(found[1]), int(found[2]), int(found[3]), salt), key)


def _key(password: str, log_cost: int, blocks: int, parallel: int, salt: bytes) -> bytes:
    # Keyboards differ in how they compose letters (RFC 8265, section 4.2.2).
    text = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    # `maxmem` counts a little more than _needed does.
    return hashlib.scrypt(text, salt=salt, n=1 << log_cost, r=blocks, p=parallel, maxmem=2 * _MEMORY, dklen=32)


def _needed(log_cost: int, blocks: int) -> int:
    return 128 * blocks << log_cost


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
