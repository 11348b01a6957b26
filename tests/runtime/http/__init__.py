"""Tests of serving HTTP and of its access checks."""
