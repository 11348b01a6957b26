"""Tests of exchanges: hashing."""
