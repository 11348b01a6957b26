"""The tests of Warren, laid out as the source is."""
