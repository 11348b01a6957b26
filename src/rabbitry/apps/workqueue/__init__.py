"""The work queue: numbers as text, on one queue, for any number of consumers."""
