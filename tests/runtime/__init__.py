"""Tests of what all long-running programs share."""
