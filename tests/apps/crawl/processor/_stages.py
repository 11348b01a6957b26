"""A processor whose worker processes die, hang or fail as the address of a page asks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.node import Node, crawl_app
from rabbitry.apps.crawl.processor import stage
from rabbitry.flow import App, Batch, Message, Outgoing


def fragile_app() -> App:
    app = crawl_app()
    app.output(names.KEEPER_KEY, queue="documents")
    app.stage(
        names.PAGE_KEY,
        queue=names.PAGE_QUEUE,
        name=names.PROCESSOR,
        processes=True,
        concurrency=1,
        batch=stage.BATCH,
        within=0.0,
        attempts=stage.READINGS + 1,
        delays=(0,),
        time_limit=3.0,  # long enough for good pages on a busy machine
    )(process)
    return app


def process(bodies: list[bytes], messages: list[Message], batch: Batch) -> Iterator[Outgoing]:
    for message in messages:
        if message.attempt <= stage.READINGS:
            address = str(message.headers.get("x-rabbitry-url"))
            if address.endswith("/dies"):
                os.kill(os.getpid(), signal.SIGKILL)
            if address.endswith("/hangs"):
                threading.Event().wait()
            if address.endswith("/memory"):
                raise MemoryError
    yield from stage.processed_all(bodies, messages, batch, Node(names.PROCESSOR, "abc"))


app = fragile_app()
