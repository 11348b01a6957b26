"""Findings of `rabbitry doctor` for queues of a crawl without consumers."""

import pytest

from rabbitry.apps.crawl.checks import checks
from rabbitry.apps.queue_checks import Look, problems


@pytest.mark.parametrize(
    ("queue", "role", "is_bad"),
    [
        ("crawl.keeper", "keeper", True),
        ("crawl.batches", "crawler", True),
        ("crawl.suspects.crawler", "crawler", True),
        ("proc", "processor", False),
    ],
)
def test_the_role_that_a_crawl_waits_for_is_named(queue: str, role: str, is_bad: bool) -> None:
    before = Look(0.0, {queue: {"messages_ready": 5}}, {})
    (problem,) = problems(before, Look(6.0, {queue: {"messages_ready": 5}}, {}), checks.untaken)
    assert (problem.is_bad, f"rabbitry crawl {role}" in problem.todo) == (is_bad, True)
    (problem,) = problems(before, Look(6.0, {queue: {"messages_ready": 9}}, {}), checks.untaken)
    assert (problem.is_bad, f"rabbitry crawl {role}" in problem.todo) == (True, True)
    assert problems(before, Look(6.0, {queue: {"messages_ready": 9, "consumers": 1}}, {}), checks.untaken) == []


def test_dead_letters_of_a_crawl_are_reported() -> None:
    looks = [Look(at, {"crawl.dead": {"messages_ready": 2}}, {}) for at in (0.0, 6.0)]
    (problem,) = problems(looks[0], looks[1], checks.untaken)
    assert (problem.is_bad, problem.todo) == (False, "rabbitry dead list crawl")


def test_an_unread_log_is_reported_if_its_lines_do_not_expire() -> None:
    def found(before: int, after: int) -> list[bool]:
        looks = [Look(6.0 * at, {"logq": {"messages_ready": ready}}, {}) for at, ready in enumerate((before, after))]
        return [problem.is_bad for problem in problems(looks[0], looks[1], checks.untaken)]

    assert found(500, 5_000) == []
    assert found(300_000, 300_000) == []
    assert found(300_000, 310_000) == [False]
