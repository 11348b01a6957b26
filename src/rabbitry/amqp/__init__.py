"""AMQP 0-9-1.

`protocol` is the protocol without I/O, `driver` the asyncio transport of client and broker, `client` the client.
"""
