"""Tests of what running nodes report of themselves."""
