"""The work queue: numbers as text, on one queue, for any number of consumers.

Public is only `plugin`, which Rabbitry loads through its entry point.
"""
