"""Serving HTTP inside a program that also does other things, and access checks of its requests. Needs uvicorn.

For Rabbitry alone: `serving` (runs the server), `connections` (limits of each peer), `guard` (passwords and headers)
and `origins` (checks of Host, Origin and Referer).
"""
