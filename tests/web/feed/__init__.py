"""Tests of the dashboard's live feed that mirror its source."""
