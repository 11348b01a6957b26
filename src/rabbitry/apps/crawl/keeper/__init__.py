"""The keeper: records what was found, fetched and refused, with reasons, and decides what to fetch next and when."""
