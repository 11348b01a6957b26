"""What survives a restart: a journal gathers changes in the event loop, a store writes them in batches."""
