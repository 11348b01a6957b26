"""Tests of flow that mirror its source, on both brokers."""
