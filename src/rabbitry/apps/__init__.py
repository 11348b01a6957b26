"""Programs built on Rabbitry, each usable alone, and what any app brings to it: see docs/apps.md."""

from __future__ import annotations

from rabbitry.apps._plugin import Checks, Finding, Plugin, Service, Services, Site, Untaken, Up, View

__all__ = ["Checks", "Finding", "Plugin", "Service", "Services", "Site", "Untaken", "Up", "View"]
