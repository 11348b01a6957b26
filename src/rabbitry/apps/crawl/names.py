"""Names on the broker that crawlers, processors and keepers share with each other and with other programs."""

from __future__ import annotations

from typing import Final

APP: Final = "crawl"
EXCHANGE: Final = "exchtopic"
"""A topic exchange."""

PAGE_KEY: Final = "rproc"
PAGE_QUEUE: Final = "proc"
"""Crawled pages, for the processors. The keeper's queue is bound with the key too."""
LOG_KEY: Final = "rlog"
LOG_QUEUE: Final = "logq"
"""A line for each thing that a node does. It may have no reader: each line expires after LOG_SECONDS."""
LOG_SECONDS: Final = 60.0

LOG_OUTCOME: Final = "x-rabbitry-outcome"
LOG_WIRE: Final = "x-rabbitry-wire"
"""Headers of a log line for the live picture, beside its text: the outcome, a word of `OUTCOMES`, and the bytes that
came over the network for it. A line of Rabbitry's own without an outcome counts as no page; a line of another program
counts as one.
"""

CRAWLER: Final = "crawler"
PROCESSOR: Final = "processor"
KEEPER: Final = "keeper"
"""Kinds of nodes: the first field of their log lines, and the names of their stages in telemetry, where they have
the same id.
"""

BATCH_KEY: Final = "crawl.batch"
BATCH_QUEUE: Final = "crawl.batches"
"""Addresses of one host to be fetched, for any crawler."""
KEEPER_KEY: Final = "crawl.keeper"
KEEPER_QUEUE: Final = "crawl.keeper"
"""All that the keeper must know: pages and outcomes, documents, commands, its own ticks. One keeper reads it at a
time.
"""
QUESTION_QUEUE: Final = "crawl.questions"
"""Questions about the crawl, which any keeper answers from the database."""
