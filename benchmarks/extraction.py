"""CPU time of extracting a page of site A (58 kB, 150 links) in one process: `make bench ARGS=extraction`.

Each figure is the best of several runs over the same pages. A page's links are either joined to addresses or found in
the cache of links that a site's pages have in common.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Final

from tests.support.pages import SITE_A
from tests.support.sites import Request

from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.processor import addresses, html
from rabbitry.apps.crawl.processor.documents import documents
from rabbitry.apps.crawl.processor.encodings import decode
from rabbitry.apps.crawl.processor.language import language_of
from rabbitry.apps.crawl.processor.pages import Page
from rabbitry.apps.crawl.processor.words import fingerprint_of, keywords_of, words_of

_PAGES: Final = 40
_RUNS: Final = 15
_TYPE: Final = "text/html; charset=utf-8"
_HOST: Final = "127.0.0.1"
_URL: Final = f"http://{_HOST}:8000/p/{{}}"


def _milliseconds(work: Callable[[int], object]) -> float:
    """Return the CPU time of a call, the best of several runs."""
    best = float("inf")
    for _ in range(_RUNS):
        began = time.process_time()
        for number in range(_PAGES):
            work(number)
        best = min(best, (time.process_time() - began) / _PAGES)
    return best * 1000


def main() -> int:
    """Measure and print."""
    bodies = [
        SITE_A(Request("GET", f"/p/{number}", _HOST, _HOST, f"http://{_HOST}:8000", {})).body
        for number in range(_PAGES)
    ]
    texts = [decode(body, _TYPE).text for body in bodies]
    mains = [html.read_html(text, _URL.format(number)).text for number, text in enumerate(texts)]
    words = [words_of(main) for main in mains]

    def whole(number: int) -> Document:
        url = _URL.format(number)
        page = Page(url, url, content_type=_TYPE)
        return next(documents(page, bodies[number], Document(url, 0.0, "bench")))

    def links_anew(number: int) -> object:
        addresses.known.forget()
        return html.read_links(texts[number], _URL.format(number))

    measures: dict[str, tuple[Callable[[int], object], float | None]] = {
        "links and title": (
            lambda number: html.read_links(decode(bodies[number], _TYPE).text, _URL.format(number)),
            0.75,
        ),
        "links and title, all joined anew": (links_anew, 0.75),
        "main text": (lambda number: html.main_text(texts[number]), None),
        "language": (lambda number: language_of(mains[number], "en"), None),
        "words": (lambda number: words_of(mains[number]), None),
        "keywords": (lambda number: keywords_of(words[number], "title", "en"), None),
        "fingerprint": (lambda number: fingerprint_of(words[number]), None),
        "everything": (whole, 2.2),
    }
    for name, (work, target) in measures.items():
        row = {"measure": f"{name}, ms of CPU a page", "value": round(_milliseconds(work), 3), "at most": target}
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
