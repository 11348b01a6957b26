"""`rabbitry crawl`: crawlers, processors and keepers. Each group of commands lies in a file of its own."""

from __future__ import annotations

import typer

from rabbitry.cli import crawl_add, crawl_asking, crawl_crawler, crawl_export, crawl_keeper, crawl_processor, crawl_run

app = typer.Typer()


@app.callback()
def crawl() -> None:
    """Crawl web sites: some machines fetch, others process, the broker carries everything between them."""


crawl_crawler.add_to(app)
crawl_processor.add_to(app)
crawl_keeper.add_to(app)
crawl_run.add_to(app)
crawl_add.add_to(app)
crawl_asking.add_to(app)
crawl_export.add_to(app)
