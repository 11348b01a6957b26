"""AMQP 0-9-1.

`protocol` is the protocol without I/O, `driver` the asyncio transport of both sides, and `client` the client.
"""
