"""Tests of similar solutions."""
