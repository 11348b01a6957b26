"""Other projects' crawlers on the benchmark's sites. They run in a separate environment: `.venv-crawl-peers`."""
