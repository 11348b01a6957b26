"""Scripts of steps that run on RabbitMQ and on the embedded broker; everything that a client can see is compared."""
