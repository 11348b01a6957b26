"""Tests of rabbitry.flow.worker, on both brokers: what a worker does with messages, and what breaks under it."""
