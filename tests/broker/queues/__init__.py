"""Tests of queues: their arguments, order, limits, expiry and dead letters."""
