"""Regular expressions set by administrators, which permissions and policies search for in names.

Clients choose names, and a name may be crafted to make a pattern search forever. RabbitMQ's library (PCRE, over bytes)
gives up after a number of steps and counts that as no match; this code does the same after some milliseconds, since the
event loop waits. PCRE refuses patterns that would grow too large; so does this code.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Final

from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)
_SECONDS: Final = 0.02
_LEAST_SECONDS: Final = 0.0002
"""Seconds left to a pattern that timed out repeatedly: a hundred times an ordinary match."""
_ANSWER_SECONDS: Final = 0.1
"""Seconds for all names of one answer together."""
_LARGEST: Final = 10_000
_LONGEST_COUNT: Final = 65_535
_ANYTHING: Final = ".*"


class Pattern:
    """A regular expression. Raises UsageError for an invalid one, or one that is too large."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        import regex  # takes longer to load than the whole broker, which rarely needs it

        raw = text.encode("utf-8", "surrogateescape")
        if _size(text) > _LARGEST:
            raise UsageError("regular expression is too large")
        try:
            # The library's own cache would keep each pattern a second time.
            self._compiled = regex.compile(raw, regex.IGNORECASE if ignore_case else 0, cache_pattern=False)
        except regex.error as error:
            raise UsageError(str(error)) from error
        except RecursionError as error:
            raise UsageError("regular expression is nested too deep") from error
        self._text = text
        self._seconds = _SECONDS

    def is_in(self, name: str) -> bool:
        """Return whether the pattern is found anywhere in a name; False if the search takes too long."""
        try:
            return self._find(name)
        except TimeoutError:
            if self._seconds > _LEAST_SECONDS:
                _logger.warning("pattern %r takes too long with %r: taken as no match", self._text, name)
                self._seconds = max(self._seconds / 2, _LEAST_SECONDS)
            return False

    def finder(self) -> Callable[[str], bool]:
        """Return a predicate that searches a name for the pattern, for the names of one answer.

        The predicate raises TimeoutError if one name, or all together, take too long: the event loop waits for it.
        """
        left = _ANSWER_SECONDS

        def find(name: str) -> bool:
            nonlocal left
            if left <= 0:
                raise TimeoutError
            began = time.thread_time()  # thread time: on a busy machine the process may not be running
            found = self._find(name)
            left -= time.thread_time() - began
            return found

        return find

    def _find(self, name: str) -> bool:
        return self._compiled.search(name.encode("utf-8", "surrogateescape"), timeout=self._seconds) is not None


@functools.lru_cache(maxsize=16_384)
def _pattern(text: str) -> Pattern:
    return Pattern(text)


def check_pattern(text: str) -> None:
    """Raise UsageError for an invalid regular expression, or one that is too large."""
    if text != _ANYTHING:
        _pattern(text)


def matches(text: str, name: str) -> bool:
    """Return whether the regular expression `text`, which was checked before, is found in a name."""
    return text == _ANYTHING or _pattern(text).is_in(name)


def _size(text: str) -> int:
    """Estimate the size of a pattern when expanded, as PCRE does: {n} multiplies the size of the item before it.

    Raises UsageError for a count that PCRE does not accept.
    """
    totals, last, at = [0], [0], 0
    while at < len(text):
        char, size = text[at], 1
        at += 1
        if char == "\\":
            at += 1
        elif char == "[":
            end = text.find("]", at + (2 if text[at : at + 1] == "^" else 1))
            at = end + 1 if end > 0 else len(text)
        elif char == "(":
            totals.append(0)
            last.append(0)
            continue
        elif char == ")" and len(totals) > 1:
            size = totals.pop() + 1
            last.pop()
        elif char == "{":
            digits, at = _digits(text, at)
            if digits:
                if digits > _LONGEST_COUNT:
                    raise UsageError("number too big in {} quantifier")
                size = last[-1] * (digits - 1)
        totals[-1] += size
        last[-1] = size if char != "{" else last[-1] + size
        if totals[-1] > _LARGEST:
            return totals[-1]
    return sum(totals)


def _digits(text: str, at: int) -> tuple[int, int]:
    """Return the number at `at`, 0 for none, and the offset behind it."""
    end = at
    while end < len(text) and text[end] in "0123456789":
        end += 1
    return int(text[at:end][:9] or "0"), end
