"""Stages whose workers were gone before the dashboard began, on both brokers."""

from collections.abc import Iterator

import pytest

import rabbitry
from rabbitry.flow.wiring import pausing
from rabbitry.web.sources import Sources
from tests.support.management import broker_and_management
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["embedded", "rabbitmq"])
def watched(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


async def test_a_stage_without_workers_is_found_on_the_broker(watched: tuple[str, str]) -> None:
    broker, management = watched
    app = rabbitry.App("left")

    @app.stage("in", queue="own name")
    async def behind(text: str) -> None: ...

    @app.stage("other")
    async def removed(text: str) -> None: ...

    async with app.publisher(broker) as publisher, rabbitry.connect(broker) as connection:
        await publisher.publish("waits", key="in")
        await pausing.pause(connection, "left", "behind", by="ada", why="so")
        async with await connection.channel() as channel:
            await channel.delete_queue(app.stages["removed"].queue)
    sources = Sources(broker, management)
    topic = sources.flows.topic
    topic.subscribe({}, lambda: None)
    async with sources.running():
        await eventually(lambda: topic.value.get("left/behind", {}).get("waiting") == 1, "the stage and what waits")
        found = topic.value["left/behind"]
        assert (found["queue"], found["key"], found["state"]) == ("own name", "in", "paused")
        assert found["pause"]["by"] == "ada"
        assert "left/removed" not in topic.value
