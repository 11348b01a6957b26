"""Searching a large index."""

import random
import statistics
import tempfile
import time
from functools import partial
from typing import Final

from tests.support.pages import words

from benchmarks.crawl_parts import Row
from rabbitry.apps.crawl.keeper import index, searching
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.messages import Document

_DOCUMENTS: Final = 100_000
_AT_ONCE: Final = 500
_SEARCHES: Final = 300
_WORDS: Final = 300


def search(share: float) -> list[Row]:
    """Search documents of 300 words for one to three words, rare and common."""
    count = int(_DOCUMENTS * share)
    chance = random.Random(1)
    vocabulary = sorted({*words("vocabulary", 40_000).split()})
    # As in a language, the first words are in many documents, the last ones in few.
    weights = [1 / (number + 10) for number in range(len(vocabulary))]
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{folder}/crawl.db") as database:
        for first in range(0, count, _AT_ONCE):
            texts = [chance.choices(vocabulary, weights, k=_WORDS) for _ in range(min(_AT_ONCE, count - first))]
            documents = [
                Document(
                    f"http://site{number % 500}.example/{first + number}", 1e9, "bench", fetched_at=1e9,
                    title=" ".join(text[:5]), text=" ".join(text),
                )
                for number, text in enumerate(texts)
            ]  # fmt: skip
            database.write_now(partial(index.store, documents=documents))
        seconds = []
        for _ in range(_SEARCHES):
            typed = " ".join(chance.choices(vocabulary, weights, k=chance.randint(1, 3)))
            began = time.perf_counter()
            database.read_now(partial(searching.search, typed=typed))
            seconds.append(time.perf_counter() - began)
    late = statistics.quantiles(seconds, n=20)[18] * 1000
    return [Row(f"search of {count:,} documents, 95th percentile, ms", f"{late:.0f}", "< 50")]
