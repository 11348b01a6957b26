"""Tests of the store: confirmed messages survive."""
