"""The management API: the part of RabbitMQ's HTTP API that tools use, same paths and field names.

Loaded after the broker listens for AMQP, so that nobody waits for a web framework.
"""
