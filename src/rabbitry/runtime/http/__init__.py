"""Serving HTTP beside the other work of a program, and checking who may access it. Needs uvicorn.

For Rabbitry alone: `serving` (runs the server), `connections` (limits of each peer), `guard` (passwords and headers),
`guesses` (pauses after wrong passwords), `rates` (how often each address may do something), `origins` (checks of Host,
Origin and Referer), `pages` (WebSockets of live pages) and `prometheus` (a broker's figures in Prometheus's format).
"""
