"""Crawlers and processors will live here."""
