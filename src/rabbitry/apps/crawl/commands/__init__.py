"""`rabbitry crawl`: crawlers, processors and keepers. Each group of commands has a file."""

from __future__ import annotations

import typer

from rabbitry.apps.crawl.commands import add, asking, crawler, export, keeper, processor, run

app: typer.Typer = typer.Typer()


@app.callback()
def crawl() -> None:
    """Crawl web sites: some machines fetch, others process, and the broker carries everything between them."""


crawler.add_to(app)
processor.add_to(app)
keeper.add_to(app)
run.add_to(app)
add.add_to(app)
asking.add_to(app)
export.add_to(app)
