"""The asyncio client: connection, channel, publishing, consuming."""
