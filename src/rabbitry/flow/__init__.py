"""App and its stages, workers, settlement, retries and dead letters."""

from rabbitry.flow.app import App
from rabbitry.flow.batch import Batch
from rabbitry.flow.message import Message
from rabbitry.flow.outgoing import Outgoing

__all__ = ["App", "Batch", "Message", "Outgoing"]
