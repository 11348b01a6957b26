"""`python -m rabbitry` is the `rabbitry` command."""

from __future__ import annotations

from rabbitry.cli import main

main()
