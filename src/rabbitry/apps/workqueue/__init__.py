"""The work queue: numbers as text, on one queue, for any number of consumers.

For Rabbitry alone, which loads `plugin` through its entry point.
"""
