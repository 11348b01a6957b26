"""Tests of the store: what is confirmed survives."""
