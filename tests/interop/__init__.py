"""Other clients compared with ours, on both brokers."""
