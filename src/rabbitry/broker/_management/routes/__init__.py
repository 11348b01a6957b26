"""The paths of the management API, a file for each group of objects; importing them fills ROUTES."""

from __future__ import annotations

from rabbitry.broker._management.call import ROUTES
from rabbitry.broker._management.routes import access, clients, metrics, settings, topology, whole

__all__ = ["ROUTES", "access", "clients", "metrics", "settings", "topology", "whole"]
