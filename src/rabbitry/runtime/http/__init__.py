"""Serving HTTP inside a program that also does other things, and access checks of its requests. Needs uvicorn."""
