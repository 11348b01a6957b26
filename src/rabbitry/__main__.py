"""`python -m rabbitry` is the `rabbitry` command."""

from rabbitry.cli import main

main()
