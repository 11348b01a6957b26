"""Recorded sessions of clients and brokers, mutated at random: only documented errors may follow."""
