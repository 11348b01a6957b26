"""Tests of the management API that mirror its source; `test_management.py` beside this compares it with RabbitMQ."""
