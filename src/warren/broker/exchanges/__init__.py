"""The exchange types: each routes a message's routing key and headers to destinations."""
