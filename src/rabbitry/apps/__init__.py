"""Programs built on Rabbitry, each usable alone, and the base of every app: see docs/apps.md.

Public modules: `exceptions`; for the dashboard and the `rabbitry` command `installed` (finds the apps), `settings`
(environment and `.env`), `management` (the management API's client), `api` (routes for pages), `users` (the dashboard's
users and their roles), `users_file` and `passwords` (where they are kept) and `queue_checks` (for `rabbitry doctor`).
Rabbitry's own apps, `crawl`, `grading`, `monitor` and `workqueue`, are reached only through their entry points.
"""

from __future__ import annotations

from rabbitry.apps._plugin import (
    Checks,
    Finding,
    Metric,
    Panel,
    Plugin,
    Service,
    Services,
    Site,
    Trial,
    Untaken,
    Up,
    Verdict,
    View,
)
from rabbitry.apps.users import AppRole, Role, User, needs, user_of

__all__ = [
    "AppRole",
    "Checks",
    "Finding",
    "Metric",
    "Panel",
    "Plugin",
    "Role",
    "Service",
    "Services",
    "Site",
    "Trial",
    "Untaken",
    "Up",
    "User",
    "Verdict",
    "View",
    "needs",
    "user_of",
]
