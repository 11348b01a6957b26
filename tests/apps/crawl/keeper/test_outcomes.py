"""Links and redirects to addresses that cannot be fetched: each has its own outcome, counted once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.keeper import Decided
from rabbitry.apps.crawl.keeper.reading import status, why
from rabbitry.apps.crawl.keeper.role import MOST_ANSWERS, Role
from rabbitry.apps.crawl.messages import Answer
from rabbitry.apps.crawl.node import Node
from rabbitry.flow import Message
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, words

START = "http://a.test/"
LONG = f"{START}{'x' * 100_000}"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database on SQLite."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield opened


def test_a_link_that_is_too_long_is_counted_once_and_can_be_asked_for(database: Database) -> None:
    links = [LONG[:2049], f"{START}1"]
    pages = {START: Answered(words(0), links), f"{START}1": Answered(words(1), links)}
    world = World(database, lambda url: pages.get(url, MISSING))
    world.add(START)
    world.run()
    found = database.read_now(lambda connection: status(connection, world.now))
    assert (found.outcomes["too-long"], found.outcomes["document"]) == (1, 2)
    for url in (LONG, LONG[:2049]):
        told = database.read_now(lambda connection, url=url: why(connection, url, world.now))  # type: ignore[misc] # mypy infers no default of a lambda
        assert (told.state, [one.outcome for one in told.decisions]) == ("done", ["too-long"])
    never = database.read_now(lambda connection: why(connection, f"{START}y{'x' * 3_000}", world.now))
    assert (never.state, never.would) == ("unknown", "too-long")


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("ftp://a.test/file", "bad-scheme"),
        ("mailto:a@a.test", "bad-scheme"),
        ("javascript:alert(1)", "bad-scheme"),
        ("data:text/html,x", "bad-scheme"),
        (LONG, "too-long"),
        ("http://a.test:25/", "bad-address"),
    ],
)
def test_a_redirect_to_an_unfetchable_target_has_its_outcome(location: str, word: str, database: Database) -> None:
    world = World(database, lambda url: Answered(outcome="redirect", location=location) if url == START else MISSING)
    world.add(START)
    world.run()
    told = database.read_now(lambda connection: why(connection, START, world.now))
    last = told.decisions[-1]
    assert (told.state, last.outcome) == ("done", word)
    assert location[:40] in last.detail
    assert len(last.detail) <= 300


@pytest.mark.parametrize("word", ["extractor-died", "unreadable", "bomb", "broken-encoding"])
def test_a_page_that_no_processor_could_read_is_named_and_counted_and_not_fetched_again(
    simple: Database, word: str
) -> None:
    world = World(simple, lambda url: Answered(problem=word) if url == START else MISSING)
    world.add(START)
    world.run()
    told = simple.read_now(lambda connection: why(connection, START, world.now))
    assert (told.state, [one.outcome for one in told.decisions]) == ("done", ["queued", "sent", "page", word])
    counted = simple.read_now(lambda connection: status(connection, world.now))
    assert (counted.outcomes[word], counted.documents) == (1, 0)
    assert world.requests()[START] == 1


def test_a_server_without_content_is_no_failure(database: Database) -> None:
    world = World(database, lambda url: Answered(outcome="no-content") if url == START else MISSING)
    world.add(START)
    world.run()
    told = database.read_now(lambda connection: why(connection, START, world.now))
    assert [one.outcome for one in told.decisions] == ["queued", "sent", "no-content"]


async def test_the_oldest_of_too_many_waiting_answers_is_dropped(database: Database) -> None:
    role = Role(Node("keeper"), database)
    for number in range(MOST_ANSWERS + 2):
        message = Message(
            f"m{number}", f"c{number}", 1, "keeper", "crawl.keeper", "", "crawl.keeper", None, "Command", None, None,
            {}, reply_to="somebody",
        )  # fmt: skip
        role._answer(Decided(answers={message.id: Answer(said=[str(number)])}), [message])
    waiting = [role.answers.get_nowait()[1] for _ in range(role.answers.qsize())]
    assert waiting == [f"c{number}" for number in range(2, MOST_ANSWERS + 2)]
