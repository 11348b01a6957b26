"""Scripts of steps that run on RabbitMQ and on the embedded broker; everything visible to a client is compared."""
