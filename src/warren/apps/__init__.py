"""Programs built on Warren, each usable alone."""
