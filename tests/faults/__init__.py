"""Long tests that break things; short forms of them run in `make test`."""
