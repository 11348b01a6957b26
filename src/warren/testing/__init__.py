"""Testing a user's app: `harness(app)` runs the real thing on an embedded broker."""

from warren.testing.harness import Harness, harness

__all__ = ["Harness", "harness"]
