"""Durable state: a journal gathers changes in the event loop, and a store writes them in batches."""
