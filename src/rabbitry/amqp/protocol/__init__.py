"""AMQP 0-9-1 without I/O, for client and broker: bytes in, events out, bytes to send.

Modules: `connection` is the core that turns bytes into events; `events` are what it returns, `states` its transitions,
`methods` the classes of all methods, `layouts` their fields on the wire, `encoding` their bytes, `contents` messages
that arrive in pieces, `properties` and `tables` the codecs of content headers and tables, `constants` the numbers of
the specification, `hot` the code that every message passes through, and `amqp_0_8` the differences of version 0-8.
"""
