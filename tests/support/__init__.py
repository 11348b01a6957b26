"""Helpers of the tests: servers, proxies and waiting. Nothing here is part of Rabbitry."""
