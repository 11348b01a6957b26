"""What the broker does on each method: one file for each AMQP class."""
