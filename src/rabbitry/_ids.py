"""Finding the one id that a user means by its beginning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rabbitry.exceptions import RabbitryError

_SHOWN: Final = 5


class NoSuchID(RabbitryError):
    """No message or submission has an id that begins so, or several have. The text says which.

    is_ambiguous: more letters of the id may help.
    """

    def __init__(self, text: str, *, is_ambiguous: bool = False) -> None:
        super().__init__(text)
        self.is_ambiguous = is_ambiguous


def pick(given: str, ids: Iterable[str], what: str, *, least: int = 1, typed: str | None = None) -> str:
    """Return the id that is `given`, or the only one that begins with it.

    Args:
        given: an id, or the beginning of one.
        ids: the ids to choose from; the same one may be there several times.
        what: what has these ids, for the error.
        typed: what the user typed, if it is kept as another text.
        least: letters that a beginning has at least. More than one if who asks must not learn others' ids: the
            error then names none.

    Raises:
        NoSuchID: no id begins so, several do, or the beginning is too short.
    """
    typed = given if typed is None else typed
    found = sorted({identity for identity in ids if given and identity.startswith(given)})
    if given in found:
        return given
    if not found:
        raise NoSuchID(f"no {what} has the id {typed!r}, or an id that begins so")
    if len(given) < least:
        raise NoSuchID(
            f"{typed!r} is too short: give at least {least} letters of the id of a {what}", is_ambiguous=True
        )
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (" and others" if len(found) > _SHOWN else "")
        which = f": {shown}" if least == 1 else ""
        raise NoSuchID(f"{typed!r} is the beginning of several ids{which}; give more of it", is_ambiguous=True)
    return found[0]
