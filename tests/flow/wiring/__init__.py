"""Tests of rabbitry.flow.wiring: exchanges, queues and bindings of apps, retry queues and dead letters."""
