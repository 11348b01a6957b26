"""The keeper: what was found, fetched and refused, and why; what is fetched next, and when."""
