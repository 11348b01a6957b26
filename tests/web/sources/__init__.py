"""Tests of the feed's topics that mirror their source."""
