"""Where durable queues keep their messages will live here: batches go in where a chunk's publishes end,
before `ClientConnection` confirms them; nothing else of the broker depends on it."""
