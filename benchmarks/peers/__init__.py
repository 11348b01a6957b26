"""Peers: one program for each other client, all with the same arguments and the same line of results."""
