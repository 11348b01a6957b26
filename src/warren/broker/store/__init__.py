"""Where durable queues keep their messages."""
