"""Tests of crawlers and processors."""
