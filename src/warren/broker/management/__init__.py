"""RabbitMQ's management HTTP API for the embedded broker will live here."""
