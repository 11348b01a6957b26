"""What the scenes of crawls hold against the sites' log."""

from __future__ import annotations

from tests.support.crawl_scenes import not_lost
from tests.support.sites import Entry, Log


def _entry(target: str, began: float, ended: float) -> Entry:
    return Entry(began, ended, "127.1.0.1", "127.1.0.1", target, "rabbitry", 200, 100, 0)


def test_a_page_fetched_again_without_a_reason_is_found() -> None:
    log = Log(
        [
            _entry("/once", 100, 101),
            _entry("/long before", 50, 51),
            _entry("/unconfirmed", 95, 96),
            _entry("/under way", 99, 130),
            _entry("/meanwhile", 104, 104.5),
            _entry("/after", 111, 112),
            _entry("/robots.txt", 10, 11),
            *(_entry(target, 200, 201) for target in ("/long before", "/unconfirmed", "/under way", "/meanwhile")),
            *(_entry(target, 200, 201) for target in ("/after", "/robots.txt")),
            _entry("/unconfirmed", 210, 211),  # the first of its two earlier requests was lost, not this one
        ]
    )
    happened = [(100.0, 110.0)]
    assert not_lost(log, happened) == ["127.1.0.1/after", "127.1.0.1/long before", "127.1.0.1/unconfirmed"]
    assert not not_lost(log, [*happened, (55.0, 56.0), (115.0, 116.0), (205.0, 206.0)])
