"""Pauses between attempts to connect and to consume."""

from typing import Final

from rabbitry.runtime.backoff import Backoff

AGAIN: Final = Backoff(0.4, 15.0)
"""Of a connection or consumer that was lost."""
AT_START: Final = Backoff(2.0, 30.0, growth=1.5, spread=0.2)
"""Of a program that starts before its broker."""
