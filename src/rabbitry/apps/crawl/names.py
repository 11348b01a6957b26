"""Names on the broker shared by crawlers, processors and keepers, and with other programs."""

from __future__ import annotations

from typing import Final

APP: Final = "crawl"
EXCHANGE: Final = "exchtopic"
"""A topic exchange."""

PAGE_KEY: Final = "rproc"
PAGE_QUEUE: Final = "proc"
"""Crawled pages for the processors. The keeper's queue is bound with this key too."""
LOG_KEY: Final = "rlog"
LOG_QUEUE: Final = "logq"
"""A line for each action of a node. It may have no reader: lines expire after LOG_SECONDS."""
LOG_SECONDS: Final = 60.0

LOG_OUTCOME: Final = "x-rabbitry-outcome"
LOG_WIRE: Final = "x-rabbitry-wire"
"""Headers of a log line for the live picture, beside its text: the outcome, a word of `OUTCOMES`, and the bytes
received over the network for it. Rabbitry's lines without an outcome count as no page; another program's lines count
as one each.
"""

CRAWLER: Final = "crawler"
PROCESSOR: Final = "processor"
KEEPER: Final = "keeper"
"""Kinds of nodes: the first field of their log lines, and the names of their stages in telemetry, which reports the
same id.
"""

BATCH_KEY: Final = "crawl.batch"
BATCH_QUEUE: Final = "crawl.batches"
"""Batches of one host's addresses, for any crawler."""
KEEPER_KEY: Final = "crawl.keeper"
KEEPER_QUEUE: Final = "crawl.keeper"
"""All input of the keeper: pages and outcomes, documents, commands, its own ticks. One keeper consumes it at a
time.
"""
QUESTION_QUEUE: Final = "crawl.questions"
"""Queries about the crawl, which any keeper answers from the database."""
