"""The management API: the part of RabbitMQ's HTTP API that tools use, with the same paths and field names.

Loaded after the broker listens for AMQP, so that AMQP clients don't wait for a web framework.
"""
