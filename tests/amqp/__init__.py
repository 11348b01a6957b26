"""Tests of the client and the protocol, which mirror the source."""
