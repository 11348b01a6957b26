"""Serving HTTP beside the other work of a program, and checking who may access it. Needs uvicorn."""
