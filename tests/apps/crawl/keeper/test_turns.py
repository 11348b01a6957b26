"""Turns of hosts: crawls take turns, and hosts that may be dead delay no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.state import FIRST_UNTRIED, SMALLEST_UNTRIED, Host
from rabbitry.apps.crawl.keeper.turns import Turns
from rabbitry.apps.crawl.messages import Add, Batch, Outcome, Report
from tests.apps.crawl.keeper.simulation import FakeIndex

NOW = 1_000_000.0


def turns(*hosts: tuple[int, float]) -> tuple[Turns[Host], dict[int, Host]]:
    """Return turns with these hosts: crawl and due time of each."""
    made = {number: Host(number, f"h{number}", due=due, crawl=crawl) for number, (crawl, due) in enumerate(hosts)}
    found = Turns(made)
    for host in made.values():
        host.is_listed = True
        found.put(host)
    return found, made


def test_crawls_take_turns_and_of_each_the_host_that_is_due_for_longest() -> None:
    found, _ = turns((1, 3.0), (1, 1.0), (1, 2.0), (2, 5.0), (3, 4.0), (3, 99.0))
    assert [host.id for host in found.take(10.0)] == [1, 3, 4, 2, 0]
    assert list(found.take(10.0)) == []
    assert found.next_due() == 99.0
    assert [host.id for host in found.take(100.0)] == [5]
    assert found.next_due() is None


def test_a_crawl_all_of_whose_hosts_were_taken_has_none_that_is_due() -> None:
    found, _ = turns((1, 3.0))
    assert next(found.take(10.0)).id == 0
    assert found.next_due() is None


def test_a_host_also_found_by_a_later_crawl_takes_its_turn_there() -> None:
    found, hosts = turns((1, 1.0), (1, 2.0), (1, 3.0))
    hosts[2].crawl = 2
    found.put(hosts[2])
    assert [host.id for host in found.take(10.0)] == [0, 2, 1]


def test_a_host_that_is_due_later_than_it_was_listed_for_waits() -> None:
    found, hosts = turns((1, 1.0), (1, 2.0))
    hosts[0].due = 50.0
    assert [host.id for host in found.take(10.0)] == [1]
    assert [host.id for host in found.take(50.0)] == [0]


class Fates:
    """A keeper whose batches end as the test says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeper = Keeper("a3f", FakeIndex())
        self.now = NOW
        self.out: dict[str, Batch] = {}

    def tell(self, *inputs: Input) -> list[Batch]:
        """Apply messages; return the batches that are sent."""
        sent = self._database.write_now(lambda connection: self._keeper.apply(connection, inputs, self.now)).batches
        self.out |= {batch.id: batch for batch in sent}
        return sent

    def add(self, name: str, *urls: str) -> list[Batch]:
        """Add addresses."""
        return self.tell(Asked(Add(list(urls), delay=0.0), name))

    def end(self, batch: Batch, outcome: str) -> list[Batch]:
        """End a batch with one outcome for all of its addresses; return the batches that are sent then."""
        del self.out[batch.id]
        told = [Outcome(batch.id, one.url, outcome, self.now, "c1", status=404) for one in batch.addresses]
        return self.tell(*told, Report(batch.id, batch.origin, "c1", self.now, 0.0))


@pytest.fixture
def fates(tmp_path: Path) -> Iterator[Fates]:
    """A keeper with an empty database."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield Fates(opened)


def test_dead_hosts_delay_no_later_crawl(fates: Fates) -> None:
    fates.add("many", *(f"http://dead{number}.test/" for number in range(2_000)))
    assert len(fates.out) == FIRST_UNTRIED
    assert fates.add("one", "http://alive.test/") == [], "there is no room"
    sent: list[str] = []
    for batch in list(fates.out.values())[:4]:
        sent += [one.origin for one in fates.end(batch, "no-connection")]
    assert "http://alive.test" in sent


def test_fewer_possibly_dead_hosts_are_out_if_they_are_dead(fates: Fates) -> None:
    fates.add("many", *(f"http://dead{number}.test/" for number in range(1_000)))
    for _ in range(2 * FIRST_UNTRIED):
        fates.end(next(iter(fates.out.values())), "no-such-host")
    assert len(fates.out) == SMALLEST_UNTRIED
    fates.add("one", "http://alive.test/")
    for _ in range(4):
        fates.end(next(iter(fates.out.values())), "no-such-host")
    robots = next(batch for batch in fates.out.values() if batch.origin == "http://alive.test")
    (pages,) = [batch for batch in fates.end(robots, "client-error") if batch.origin == "http://alive.test"]
    assert [one.url for one in pages.addresses] == ["http://alive.test/"]


def test_more_new_hosts_are_out_if_they_answer(fates: Fates) -> None:
    fates.add("many", *(f"http://h{number}.test/" for number in range(1_000)))
    for _ in range(100):
        fates.end(next(iter(fates.out.values())), "client-error")
    assert len(fates.out) == FIRST_UNTRIED + 100
