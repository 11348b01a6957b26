"""Warren: Python work and measurements across machines over RabbitMQ, seen live."""
