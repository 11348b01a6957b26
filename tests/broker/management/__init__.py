"""Tests of the management API that mirror its source; `tests/broker/test_management.py` compares it with RabbitMQ."""
