"""Tests of marking: schemes, archives, and hostile submissions."""
