"""Other people's clients beside ours, on both brokers."""
