"""Tests of rabbitry.flow, on both brokers."""
