"""Links that were looked up before: which ones are looked up again, and why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.links import Links
from rabbitry.apps.crawl.keeper.outcomes import NUMBERS, refused
from rabbitry.apps.crawl.keeper.scope import Crawl
from rabbitry.apps.crawl.keeper.state import State, load
from rabbitry.apps.crawl.keeper.work import Row, Work
from rabbitry.apps.crawl.messages import Link

X = "http://b.test/x"


def lead(connection: Connection, state: State, crawl: int, now: float, *, depth: int = 0, url: str = X) -> Row | str:
    """Have a page of a crawl link to an address; return its row, or the reason of the refusal."""
    work = Work(connection, state, now, "keeper a3f")
    links = Links(work)
    links.add_all([Link(url)], Row(1_000, 0, "http://a.test/", 1, crawl, depth))
    links.take()
    work.flush()
    key = parse(url).key
    work.look_up([key])
    ref = work.refs[key]
    work.read([ref] if ref > 0 else [])
    return work.rows[ref] if ref > 0 else refused(ref)[0]


def in_a_transaction(tmp_path: Path, test: Callable[[Connection, State], None]) -> None:
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        database.write_now(lambda connection: test(connection, load(connection, 1)))


@pytest.mark.parametrize("url", [X, "http://b.test/%78", "http://b.test./x"])
def test_a_link_that_robots_txt_forbade_is_taken_once_it_is_allowed(tmp_path: Path, url: str) -> None:
    def test(connection: Connection, state: State) -> None:
        state.begin(Crawl(1, 0.0, []))
        state.closed["http://b.test"] = (NUMBERS["disallowed"], 1.8e9 + 100)
        assert lead(connection, state, 1, 1.8e9, url=url) == "disallowed"
        assert isinstance(lead(connection, state, 1, 1.8e9 + 101, url=url), Row)

    in_a_transaction(tmp_path, test)


def test_a_host_that_comes_into_scope_has_its_links_looked_at_again(tmp_path: Path) -> None:
    def test(connection: Connection, state: State) -> None:
        state.begin(Crawl(1, 0.0, [], hosts=["a.test"]))
        assert lead(connection, state, 1, 1.8e9) == "out-of-scope"
        state.crawls[1].add_host("b.test")
        state.scope_grew()
        assert isinstance(lead(connection, state, 1, 1.8e9), Row)

    in_a_transaction(tmp_path, test)


def test_an_address_waiting_for_a_smaller_crawl_moves_to_a_larger_one(tmp_path: Path) -> None:
    def test(connection: Connection, state: State) -> None:
        state.begin(Crawl(1, 0.0, []))
        row = lead(connection, state, 1, 1.8e9)
        assert isinstance(row, Row)
        state.begin(Crawl(2, 0.0, [], depth=0))
        work = Work(connection, state, 1.8e9, "keeper a3f")
        work.read([row.id])
        work.rows[row.id].crawl = 2  # as `add` does with an address given by the user
        work.change(work.rows[row.id])
        work.flush()
        row = lead(connection, state, 1, 1.8e9)
        assert isinstance(row, Row)
        assert row.crawl == 1

    in_a_transaction(tmp_path, test)


def test_a_shorter_way_to_an_address_is_kept_if_the_depth_is_bounded(tmp_path: Path) -> None:
    def test(connection: Connection, state: State) -> None:
        state.begin(Crawl(1, 0.0, [], depth=5))
        depths = []
        for depth in (3, 4, 1):
            row = lead(connection, state, 1, 1.8e9, depth=depth)
            assert isinstance(row, Row)
            depths.append(row.depth)
        assert depths == [4, 4, 2]

    in_a_transaction(tmp_path, test)
