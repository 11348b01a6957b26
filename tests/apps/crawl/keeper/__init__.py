"""Tests of the keeper of a crawl."""
