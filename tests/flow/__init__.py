"""Tests of warren.flow, on both brokers."""
