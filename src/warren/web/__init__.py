"""The dashboard: HTTP and WebSocket API, and one page."""
