"""Host monitoring: the agent that publishes samples, and the client that computes statistics.

For Rabbitry alone, which takes `plugin` by its entry point. uvicorn takes `rabbitry.apps.monitor.publisher:app`.
"""
