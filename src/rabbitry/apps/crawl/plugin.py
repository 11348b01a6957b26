"""Crawling as a plug-in."""

from typing import Final

from rabbitry.apps import Plugin

plugin: Final = Plugin(
    name="crawl",
    title="Web sites: fetched by some machines, processed by others, searched.",
    commands="rabbitry.apps.crawl.commands:app",
    until_stopped=("crawler", "processor", "keeper", "run"),
)
