"""The table of links that need no other look-up: it may forget a link, and never claims one that was not added."""

from collections.abc import Iterable

from rabbitry.apps.crawl.keeper.known import Known
from rabbitry.apps.crawl.messages import Link


def links(numbers: Iterable[int]) -> list[Link]:
    return [Link(f"http://h.test/{number}") for number in numbers]


def urls(numbers: Iterable[int]) -> list[str]:
    return [link.url for link in links(numbers)]


def test_a_link_is_known_once_it_was_added() -> None:
    known = Known()
    assert known.unknown(links(range(150)), 1, -1) == links(range(150))
    known.add(urls(range(150)), 1, -1)
    assert known.unknown(links(range(151)), 1, -1) == links([150])


def test_a_link_is_known_only_to_its_crawl_and_depth() -> None:
    known = Known()
    known.add(urls([1]), 1, 2)
    assert known.unknown(links([1]), 2, 2) == known.unknown(links([1]), 1, 3) == links([1])
    assert known.unknown(links([1]), 1, 2) == []


def test_a_link_with_a_time_of_change_is_looked_up_each_time() -> None:
    known = Known()
    known.add(urls([1]), 1, -1)
    changed = Link("http://h.test/1", 5.0)
    assert known.unknown([changed], 1, -1) == [changed]


def test_a_forgotten_link_is_unknown_again() -> None:
    known = Known()
    known.add(urls(range(100)), 1, -1)
    known.forget(urls([7, 1_000]), 1, -1)
    assert known.unknown(links(range(100)), 1, -1) == links([7])
    known.clear()
    assert known.unknown(links(range(3)), 1, -1) == links(range(3))


def test_nearly_all_links_are_kept_while_the_table_grows() -> None:
    known = Known(smallest=64)
    for first in range(0, 10_000, 100):
        known.add(urls(range(first, first + 100)), 1, -1)
    assert len(known.unknown(links(range(10_000)), 1, -1)) < 1_000
    assert known.unknown(links(range(10_000, 20_000)), 1, -1) == links(range(10_000, 20_000))


def test_a_full_table_forgets_links_and_knows_no_others() -> None:
    known = Known(smallest=64, largest=256)
    for first in range(0, 5_000, 100):
        known.add(urls(range(first, first + 100)), 1, -1)
    unknown = known.unknown(links(range(5_000)), 1, -1)
    assert 5_000 - 256 <= len(unknown) < 5_000
    assert known.unknown(links(range(5_000, 6_000)), 1, -1) == links(range(5_000, 6_000))
