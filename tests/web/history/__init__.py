"""Tests of the history of numbers."""
