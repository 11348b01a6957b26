"""App and its stages, workers, settlement, retries and dead letters."""

from rabbitry.flow.app import App
from rabbitry.flow.message import Message

__all__ = ["App", "Message"]
