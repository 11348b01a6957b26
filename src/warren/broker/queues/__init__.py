"""Queues: messages in order, consumers in turn, what is delivered and not yet settled."""
