"""Users as JSON, alone or in definitions: password or password hash, and tags."""

from __future__ import annotations

import base64

from rabbitry.broker._management.call import bad
from rabbitry.broker._management.encoding import Json
from rabbitry.broker.access import HASHING, HASHINGS, hash_password


def read(body: Json) -> tuple[str, list[str], str]:
    """Return the hash of a user's password, the tags, and the hashing algorithm. Raises Answer (400)."""
    tags = read_tags(body)
    password_hash, hashing = _hash(body)
    return password_hash, tags, hashing


def read_tags(body: Json) -> list[str]:
    """Return the tags of a user or virtual host: a list, or names separated by commas. Raises Answer (400)."""
    tags = body.get("tags")
    tags = [] if tags is None else tags
    names = tags.split(",") if isinstance(tags, str) else tags
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad("tags must be names separated by commas, or a list of names")
    return [name.strip() for name in names if name.strip()]


def _hash(body: Json) -> tuple[str, str]:
    """Return a hash and its algorithm; without either, an empty hash, which matches no password."""
    password, hashed = body.get("password"), body.get("password_hash", "")
    if password is None:
        hashing = body.get("hashing_algorithm", HASHING)
        if hashing not in HASHINGS:
            raise bad(f"the hashing algorithm must be one of {', '.join(HASHINGS)}, not {hashing}")
        if not isinstance(hashed, str):
            raise bad(["not_base64", hashed])
        try:
            base64.b64decode(hashed, validate=True)
        except ValueError as error:
            raise bad(["not_base64", hashed]) from error
        return hashed, str(hashing)
    if "password_hash" in body:
        raise bad("both_password_and_password_hash_are_provided")
    if not isinstance(password, str):
        raise bad("the password must be a string")
    return hash_password(password), HASHING
