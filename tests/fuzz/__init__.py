"""Recorded sessions of clients and brokers, changed in all kinds of ways: nobody is to be harmed by what comes."""
