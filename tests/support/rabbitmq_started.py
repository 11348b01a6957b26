"""Start the RabbitMQ that all tests share: `python -m tests.support.rabbitmq_started`, for the launcher."""

from tests.support import rabbitmq_lent

if __name__ == "__main__":
    rabbitmq_lent.for_all()
