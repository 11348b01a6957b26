"""Tests of the Dead letters view: groups and selections, types, and the routes with both brokers behind them."""
