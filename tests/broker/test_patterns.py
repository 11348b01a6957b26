"""Regular expressions of administrators: those of PCRE that are in use, and those that would hold up the broker."""

import asyncio
import logging
import re

import httpx
import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._patterns import Pattern, check_pattern, matches
from rabbitry.broker._policies import Policy
from rabbitry.broker.access import Permission
from tests.support.steps import take_all

EVIL = r"^(a|aa)+$"
VICTIM = "a" * 100 + "!"


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (".*", "", True),
        ("^$", "", True),
        ("^$", "a", False),
        ("app", "my.app.1", True),
        (r"^(?!amq\.).*", "amq.gen-1", False),
        (r"^(?!amq\.).*", "mine", True),
        (r"^[[:alpha:]]+\h\d{2}\z", "abc 12", True),
        (r"^a++b(?>c|cd)$", "aabcd", False),
        (r"(?i)^APP", "app", True),
        (r"^.{2}$", "é", True),  # bytes, as RabbitMQ has it
        (r"^\w$", "é", False),
        (r"^[a-f0-9]{8}-([a-f0-9]{4}-){3}[a-f0-9]{12}$", "00000000-0000-0000-0000-000000000000", True),
        ("\udcff", "x\udcffy", True),
    ],
)
def test_patterns_in_use(pattern: str, name: str, found: bool) -> None:
    check_pattern(pattern)
    assert matches(pattern, name) is found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "missing )"),
        ("*", "nothing to repeat"),
        ("a{99999999}", "number too big in {} quantifier"),
        ("((a{1000}){1000}){1000}", "regular expression is too large"),
        ("[a-z]{60000}", "regular expression is too large"),
        ("a" * 20_000, "regular expression is too large"),
        ("(" * 3_000 + ")" * 3_000, "regular expression is nested too deep"),
    ],
)
def test_patterns_that_are_refused(pattern: str, text: str) -> None:
    with pytest.raises(rabbitry.UsageError, match=re.escape(text)):
        check_pattern(pattern)


async def test_a_pattern_that_takes_forever_matches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rabbitry.broker._patterns")
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        broker.access.put_permission("/", "guest", Permission(configure=EVIL))
        take_all(broker.putting_policy(Policy("/", "evil", f"(?:){EVIL}", {"max-length": 1})))
        async with rabbitry.connect(broker.url) as connection:
            for number in range(30):
                channel = await connection.channel()
                with pytest.raises(rabbitry.ChannelClosed, match="refused for user 'guest'"):
                    await channel.declare_queue(f"{number}{'a' * 60}{VICTIM}"[-101:])
            async with await connection.channel() as channel:
                await channel.declare_queue("aaa")
        broker.access.put_permission("/", "guest", Permission())
        async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            await channel.declare_queue(VICTIM)
        assert broker.vhosts["/"].queues[VICTIM].policy is None
        assert broker.vhosts["/"].queues["aaa"].policy is not None
        async with httpx.AsyncClient(base_url=broker.management_url, auth=("guest", "guest"), timeout=90) as http:
            query = {"page": "1", "use_regex": "true", "name": EVIL}
            answer = await asyncio.wait_for(http.get("api/queues", params=query), 90)
            reason = "the regular expression of name takes too long"
            assert (answer.status_code, answer.json()["reason"]) == (400, reason)
            answer = await http.get("api/queues", params={**query, "name": "^a+$"})
            assert [item["name"] for item in answer.json()["items"]] == ["aaa"]
    assert 0 < sum(record.name == "rabbitry.broker._patterns" for record in caplog.records) < 20


def test_the_names_of_one_answer_have_a_time_limit_together() -> None:
    # Each name alone is searched in time; a hundred thousand of them would hold the event loop for seconds.
    find = Pattern("^(a|aa)+$").finder()
    with pytest.raises(TimeoutError):
        [find(f"{'a' * 14}b{number}") for number in range(100_000)]
    assert Pattern(EVIL).finder()("aaa")
