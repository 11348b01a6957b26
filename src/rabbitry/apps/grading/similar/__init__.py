"""Similar solutions: fingerprints of programs' tokens (winnowing), and the pairs that share many."""

from __future__ import annotations
