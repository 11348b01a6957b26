"""Tests of the assignment correction."""
