"""Workers: they take the messages of an app's stages, run the handlers, and settle. Public is `Worker` alone."""

from rabbitry.flow.worker._worker import Worker

__all__ = ["Worker"]
