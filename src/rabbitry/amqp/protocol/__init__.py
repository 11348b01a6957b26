"""AMQP 0-9-1 without I/O, for client and broker: bytes in, events out, bytes to send."""
