"""Tests that run on each system: Linux, macOS and Windows."""
