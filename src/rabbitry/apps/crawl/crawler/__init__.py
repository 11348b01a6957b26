"""The crawler: takes batches of one host's addresses, fetches them politely, and publishes pages and a report."""
