"""Crawling as a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import Plugin, View

plugin: Final = Plugin(
    name="crawl",
    title="Crawl web sites: some machines fetch, others process; search the result.",
    commands="rabbitry.apps.crawl.commands:app",
    until_stopped=("crawler", "processor", "keeper", "run"),
    router="rabbitry.apps.crawl.hosting:router",
    views=(
        View(
            title="Crawl",
            module="crawl.js",
            styles=("crawl.css",),
            description="Crawlers, the broker and processors, live.",
        ),
    ),
    static=Path(__file__).parent / "static",
    services="rabbitry.apps.crawl.hosting:services",
    checks="rabbitry.apps.crawl.checks:checks",
)
