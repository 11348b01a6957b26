"""The tests of Rabbitry, laid out as the source is."""
