"""AMQP 0-9-1: the protocol without I/O, the asyncio transport, and the client."""
