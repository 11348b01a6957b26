"""Programs built on Rabbitry, each usable alone, and what any app brings to it: see docs/apps.md.

Public modules: `exceptions`; for the dashboard and the `rabbitry` command `installed` (finds the apps), `settings`
(environment and `.env`), `management` (the management API's client) and `queue_checks` (for `rabbitry doctor`). Beside
them are Rabbitry's own apps, `crawl`, `grading`, `monitor` and `workqueue`, reached by their entry points alone.
"""

from __future__ import annotations

from rabbitry.apps._plugin import Checks, Finding, Panel, Plugin, Service, Services, Site, Untaken, Up, Verdict, View

__all__ = ["Checks", "Finding", "Panel", "Plugin", "Service", "Services", "Site", "Untaken", "Up", "Verdict", "View"]
