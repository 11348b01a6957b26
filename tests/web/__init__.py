"""Tests of the dashboard that mirror its source."""
