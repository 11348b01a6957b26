"""Peers: a program for each other client, all with the same arguments and the same output."""
