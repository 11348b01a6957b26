"""Programs built on Rabbitry, each usable alone."""
