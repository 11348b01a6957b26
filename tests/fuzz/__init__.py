"""Recorded sessions of clients and brokers, mutated at random: no input may do harm."""
