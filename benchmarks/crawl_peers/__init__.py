"""Crawlers of other projects on the benchmark's sites. They run in an environment of their own: `.venv-crawl-peers`."""
