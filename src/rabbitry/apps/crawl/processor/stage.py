"""The processor as a stage: pages come from `proc`, documents go to the keeper, a line for each page to the log.

A page is read in a process of its own. One that kills it (a fault of a parser's, too much memory) or hangs costs its
page an attempt. Past READINGS attempts the page is not read any more: the keeper gets a document that says so, and the
page becomes a dead letter.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from functools import cache
from typing import Final

from rabbitry._errors import described
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.node import Node, crawl_app
from rabbitry.apps.crawl.problems import Problem
from rabbitry.apps.crawl.processor.documents import documents, problem_of
from rabbitry.apps.crawl.processor.pages import Page, read_page, unpack
from rabbitry.flow import App, Batch, Message, Outgoing
from rabbitry.flow.exceptions import Reject

READINGS: Final = 4
"""Attempts to read a page; one more reports that they failed."""
BATCH: Final = 32
"""Pages that are handed to a process at once: half of the CPU of one by one in what is not extraction."""
GATHERING: Final = 0.1
"""Seconds that a page waits for others, which are handed to a process with it. Where 100 come a second, pages one by
one take half as much CPU again in the processor, most of it for waking its threads and the process."""
DELAYS: Final = (1.0, 5.0, 30.0)
TIME_LIMIT: Final = 60.0
"""Seconds for as many pages; 4 MB of HTML take 5 at most, and a sitemap of 50 MB 10, on a machine that is not busy.
Past it the pages are handled one by one, so that the page at fault is found.
"""
MEMORY_LIMIT: Final = 1024 * 1024 * 1024
"""Bytes that a process may have. 4 MB of tags alone take 400 MB."""
NODE: Final = "RABBITRY_CRAWL_PROCESSOR"
"""The environment variable by which a processor's processes know its id."""


def processor_app(processes: int = 1, *, plain: bool = False) -> App:
    """Return the app of a processor.

    Args:
        processes: Pages that are read at once, each in a process of its own.
        plain: Exchange and queues are declared as the original programs do.
    """
    app = crawl_app(plain=plain)
    app.output(names.KEEPER_KEY, queue=names.KEEPER_QUEUE, single_active=True)
    app.stage(
        names.PAGE_KEY,
        queue=names.PAGE_QUEUE,
        name=names.PROCESSOR,
        processes=True,
        concurrency=processes,
        batch=BATCH,
        within=GATHERING,
        attempts=READINGS + 1,
        delays=DELAYS,
        time_limit=TIME_LIMIT,
    )(process)
    return app


def process(bodies: list[bytes], messages: list[Message], batch: Batch) -> Iterator[Outgoing]:
    """Read pages. Yields the documents of each and a line of the log; a page that can't be read fails alone."""
    _limit_memory()
    yield from processed_all(bodies, messages, batch, _node())


def processed_all(bodies: list[bytes], messages: list[Message], batch: Batch, node: Node) -> Iterator[Outgoing]:
    """Return what is published for pages; see `process`."""
    for index, (body, message) in enumerate(zip(bodies, messages, strict=True)):
        try:
            yield from processed(body, message, node, index)
        except Reject as error:
            batch.fail(index, error)


def processed(body: bytes, message: Message, node: Node, index: int | None = None) -> Iterator[Outgoing]:
    """Return what is published for a page: its documents and a line of the log. index: of the page in its batch.

    Raises Reject if it could not be read, after what tells so.
    """
    page, packed = read_page(body, message)
    begun = Document(
        batch=page.batch,
        url=page.url,
        at=time.time(),
        processor=node.id,
        crawler=page.crawler,
        fetched_at=page.fetched_at,
        status=page.status,
        final_url=page.final_url,
        is_sitemap=page.is_sitemap,
        missing=page.missing,
    )
    failure: Exception | None = None
    if message.attempt > READINGS:
        detail = f"each of {READINGS} processes that read it died, or was past {TIME_LIMIT:g} s"
        failure = Reject(f"{detail}: {page.url or 'no address'}", reason="failed")
        found = iter((problem_of(begun, Problem("extractor-died", detail)),))
    else:
        found = _documents(page, packed, message, begun)
    count, links, last = 0, 0, begun
    try:
        for last in found:
            count, links = count + 1, links + len(last.links)
            yield Outgoing(last, key=names.KEEPER_KEY, index=index)
    except MemoryError:
        raise  # the page may be read if there is more
    except Exception as error:  # noqa: BLE001 - a parser's fault: the keeper is told, and the dead letter has the whole
        failure = Reject(f"can't be read: {described(error)}", reason="failed")
        failure.__cause__ = error
        last = problem_of(begun, Problem("unreadable", described(error)[:300]))
        yield Outgoing(last, key=names.KEEPER_KEY, index=index)
    yield _logged(node, last, links, index)
    if failure is not None:
        raise failure


def _documents(page: Page, packed: bytes, message: Message, begun: Document) -> Iterator[Document]:
    try:
        body = unpack(packed, message.content_encoding)
    except Problem as problem:
        yield problem_of(begun, problem)
    else:
        yield from documents(page, body, begun)


def _logged(node: Node, document: Document, links: int, index: int | None) -> Outgoing:
    """Return the line of the log for a page. links: of all its documents."""
    outcome = document.problem or "document"
    if document.problem:
        text = f"{outcome}: {document.detail}"
    elif document.is_sitemap:
        text = f"sitemap, {links} links"
    else:
        text = f"{outcome}, {links} links, {len(document.text)} characters {document.language}".rstrip()
    return node.logged(document.url, text, outcome=outcome, index=index)


@cache
def _node() -> Node:
    return Node(names.PROCESSOR, os.environ.get(NODE))


@cache
def _limit_memory() -> None:
    """Limit the memory of this process, if it is one of a worker's: a page must not take the machine."""
    if multiprocessing.parent_process() is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


app: Final = processor_app()
"""For the processes, which find their handler by importing this module."""
