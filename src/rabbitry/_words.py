"""Words that messages for people have in common: counted things, and why something can't be read."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number with its thing in the singular or plural: `1 message`, `2 messages`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def reason(error: Exception, *, is_named: bool = True) -> str:
    """Return why a file could not be used, without the number of the error.

    is_named: the text around it names the file already. The bytes that are no text are not shown: they may be a
    password's.
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    import ssl  # an error is rare, and each start of a command would pay for it

    if isinstance(error, ssl.SSLError):
        return (error.strerror or str(error)).partition(" (_ssl.c")[0].removeprefix("[SSL] ")
    if isinstance(error, OSError):
        why = error.strerror or str(error) or type(error).__name__
        return why if is_named or error.filename is None else f"{error.filename}: {why}"
    return str(error)


def remedy(error: Exception) -> str:
    """Return what to do about an error of a file of SQLite that can be made anew; empty if nothing is known."""
    import sqlite3  # as above: an error is rare

    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits hold the kind
    return "; move it away, and a new one is made" if code in damaged else ""
