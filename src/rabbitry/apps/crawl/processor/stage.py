"""The processor as a stage: it receives pages from `proc`, and sends documents to the keeper and lines to the log.

Pages are read in separate processes. A page that kills its process (by a parser's fault or too much memory) or hangs
uses up an attempt. After READINGS attempts it is not read any more: the keeper gets a document with the problem, and
the page becomes a dead letter.
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
"""Attempts to read a page; one more reports the failure."""
BATCH: Final = 32
"""Pages passed to a process at once, which halves the CPU of everything but extraction."""
BATCH_BYTES: Final = 1 << 20
"""Compressed bytes of these pages: about 8 MB of HTML, a fifth of the time limit. Average pages do not reach it."""
GATHERING: Final = 0.1
"""Seconds that a page waits for others to be passed on together. At 100 pages a second, passing them one by one takes
half as much CPU again in the processor, most of it for waking threads and the process."""
DELAYS: Final = (1.0, 5.0, 30.0)
TIME_LIMIT: Final = 60.0
"""Time limit in seconds for that many pages; on an idle machine 4 MB of HTML take at most 5 s, a sitemap of 50 MB 10 s.
After it the pages are handled one by one, which finds the page at fault.
"""
MEMORY_LIMIT: Final = 1024 * 1024 * 1024
"""The most memory of a process in bytes. 4 MB of tags take 400 MB."""
NODE: Final = "RABBITRY_CRAWL_PROCESSOR"
"""The environment variable with the node's id for a processor's processes."""


def processor_app(processes: int = 1, *, plain: bool = False) -> App:
    """Return the app of a processor.

    Args:
        processes: The number of processes, each reading a page at a time.
        plain: Declare exchange and queues with the original programs' flags.
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
        batch_bytes=BATCH_BYTES,
        attempts=READINGS + 1,
        delays=DELAYS,
        time_limit=TIME_LIMIT,
    )(process)
    return app


def process(bodies: list[bytes], messages: list[Message], batch: Batch) -> Iterator[Outgoing]:
    """Read pages. Yields each one's documents and a log line; an unreadable page fails alone."""
    _limit_memory()
    yield from processed_all(bodies, messages, batch, _node())


def processed_all(bodies: list[bytes], messages: list[Message], batch: Batch, node: Node) -> Iterator[Outgoing]:
    """Return the messages to publish for pages; see `process`."""
    for index, (body, message) in enumerate(zip(bodies, messages, strict=True)):
        try:
            yield from processed(body, message, node, index)
        except Reject as error:
            batch.fail(index, error)


def processed(body: bytes, message: Message, node: Node, index: int | None = None) -> Iterator[Outgoing]:
    """Return the messages for a page: its documents and a log line. index: the page's position in its batch.

    Raises Reject if it could not be read, after the messages that report it.
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
        detail = f"each of {READINGS} processes that read it died or took more than {TIME_LIMIT:g} s"
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
        raise  # with more memory the page may be readable
    except Exception as error:  # noqa: BLE001 - report a parser's fault to the keeper; the dead letter has the rest
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
    """Return the log line for a page. links: those of all its documents."""
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
    """Limit the memory of this process if it is a worker's child: a page must not exhaust the machine."""
    if multiprocessing.parent_process() is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


app: Final = processor_app()
"""Used by the processes, which find their handler by importing this module."""
