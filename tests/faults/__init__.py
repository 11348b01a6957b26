"""Long tests with injected faults; `make test` runs short forms of them."""
