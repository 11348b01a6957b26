"""Tests of the embedded broker that mirror its source."""
