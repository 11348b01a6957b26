"""App and its stages, workers, settlement, retries and dead letters."""

from warren.flow.app import App
from warren.flow.message import Message

__all__ = ["App", "Message"]
