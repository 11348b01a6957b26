"""Host monitoring: the agent that publishes samples, and the client that computes statistics."""
