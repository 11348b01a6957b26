"""The Flows view in a real browser: two of them, on both brokers, and without a management API on RabbitMQ."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

import rabbitry
from rabbitry.flow import schemas
from tests.browser.axe import serious
from tests.browser.watched import SERVER_AWAY, Watched
from tests.flow._running import eventually_holds
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually
from tests.web.dead.serving import bury

pytestmark = pytest.mark.timeout(240)
_WITHIN = 90_000
_EVIL = "<img src=x onerror=alert(1)>"
_KINDS = [
    "embedded",
    *(pytest.param(f"rabbitmq{how}", marks=pytest.mark.faults) for how in ("", " without management")),
]


class Order(msgspec.Struct):
    """A message whose type has hostile text."""

    note: Annotated[str, msgspec.Meta(description=_EVIL)]


@dataclass
class System:
    """A broker and the dashboard that shows it, with the management API or without.

    delivers: whether a look at dead letters delivers them, and is asked for first.
    """

    broker: str
    url: str
    has_management: bool = True
    delivers: bool = False


@pytest.fixture(params=["embedded", "rabbitmq", "rabbitmq without management"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    port = free_port()
    more = {"RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
    if request.param != "embedded":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        has_management = request.param == "rabbitmq"
        more |= {"RABBITRY_MANAGEMENT": management_url(server)} if has_management else {}
        with commands.service("web", "--port", "0", more=more | {"RABBITRY_BROKER": server.url}) as web:
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            yield System(server.url, url, has_management=has_management, delivers=True)
        return
    with BrokerProcess("--management-port", str(port)) as broker:
        with commands.service("web", "--port", "0", more=more | {"RABBITRY_BROKER": broker.url}) as web:
            yield System(broker.url, web.wait_for(r"dashboard on (http://\S+/)")[1])


async def _open(browser: Browser, url: str, width: int) -> tuple[Watched, Page]:
    page = await browser.new_page(viewport={"width": width, "height": 800})
    watched = Watched(page, (*SERVER_AWAY, "status of 400"))  # of the second of two replays
    await page.goto(f"{url}flows/")
    return watched, page


@pytest.mark.parametrize("system", _KINDS, indirect=True)
async def test_two_browsers_pause_and_resume_a_stage_by_keyboard(browser: Browser, system: System) -> None:
    app = rabbitry.App(f"evil {_EVIL}")

    @app.stage("in", then=_EVIL, rate="1000/s", total_concurrency=3)
    async def first(order: Order) -> str:
        return order.note

    def customer(text: str) -> str:
        return text

    @app.stage(_EVIL, name=f"second {_EVIL}", rate="20/s", limit_by=customer, rate_each="10/s", concurrency_each=2)
    async def second(text: str) -> None: ...

    queue = app.stages[f"second {_EVIL}"].queue
    async with rabbitry.connect(system.broker) as connection, await connection.channel() as channel:
        await channel.declare_queue(queue, durable=True, arguments={"x-max-length": 1000})
    async with app.worker(system.broker) as worker, app.publisher(system.broker) as publisher:
        await publisher.send(Order("a"), key="in")
        watched, page = await _open(browser, system.url, 1200)
        other, narrow = await _open(browser, system.url, 320)
        stages = page.get_by_role("article")
        await _stages_are_described(stages, queue)
        await _drift_is_told(page, queue, is_known=system.has_management)
        await stages.nth(1).locator("summary", has_text="1 worker").press("Enter")
        await expect(stages.nth(1)).to_contain_text(worker.id)
        await _message_is_described(page, app)
        await _pause_in_both_at_once(page, narrow)
        paused = narrow.get_by_role("article").nth(1)
        await expect(paused).to_contain_text("Paused", timeout=_WITHIN)
        await expect(paused).to_contain_text("by this machine", timeout=_WITHIN)
        await expect(page.locator("#page").get_by_role("status")).to_have_text("1 stage is paused")
        await expect(page.get_by_role("button", name=f"Resume second {_EVIL}")).to_be_focused()
        await eventually(lambda: worker._engine.counting.stages[f"second {_EVIL}"].is_paused, "the worker to see it")
        await publisher.send(Order("b"), key="in")
        await eventually_holds(system.broker, queue, 1)
        await expect(paused.locator(".figures div", has_text="Waiting").locator("dd")).to_have_text(
            "1", timeout=_WITHIN
        )
        for each in (page, narrow):
            assert await serious(each) == []
        assert await narrow.evaluate("document.documentElement.scrollWidth") <= 320
        await narrow.get_by_role("button", name=f"Resume second {_EVIL}").click()
        await expect(stages.nth(1)).to_contain_text("Running", timeout=_WITHIN)
        await eventually_holds(system.broker, queue, 0)
        if system.has_management:
            await _no_slot_is_shown(page, system.url, queue)
            # The view of dead letters lists queues.
            await _two_replay_at_once(system, page, narrow)
        assert watched.complaints == other.complaints == []


async def _stages_are_described(stages: Locator, queue: str) -> None:
    """Check what is shown of two running stages: what they take and publish, and their limits."""
    await expect(stages).to_have_count(2, timeout=_WITHIN)
    await expect(stages.nth(0)).to_contain_text(f"publishes {_EVIL}", timeout=_WITHIN)
    await expect(stages.nth(1)).to_contain_text(f"takes {_EVIL} from {queue}", use_inner_text=True)
    await expect(stages.nth(1)).to_contain_text("Running")
    limits = stages.nth(0).locator(".limits")
    for limit in (
        r"1000/s\. [\d,]+ tokens are free, no message waits",
        r"3 at once\. 3 slots are free, no message waits",
    ):
        await expect(limits).to_contain_text(re.compile(f"Limit of all workers: {limit} for one\\."))
    await expect(stages.nth(1).locator(".limits p")).to_have_text(
        [
            re.compile(r"^Limit of all workers: 20/s\. [\d,]+ tokens? (is|are) free, no message waits for one\.$"),
            "Limit of all workers for each customer: 10/s and 2 at once. No message waits for its key.",
        ]
    )


async def _pause_in_both_at_once(page: Page, narrow: Page) -> None:
    """Pause the second stage on two pages at once, on one of them by keyboard: only one request pauses it."""
    async with _at_once("pause", page, narrow) as answers:
        await page.get_by_role("button", name=f"Pause second {_EVIL}").focus()
        await page.keyboard.press("Enter")
        await narrow.get_by_role("button", name=f"Pause second {_EVIL}").click()
    assert sorted(bool(answer["paused"]) for answer in answers) == [False, True]


async def _no_slot_is_shown(page: Page, url: str, queue: str) -> None:
    """Check that the overview leaves out the queues behind a limit unless everything is asked for."""
    await page.goto(url)
    slots = page.locator(".thing[data-kind=queue][aria-label*='.slot.']")
    await expect(page.locator(f".thing[data-kind=queue][aria-label^='queue {queue}']")).to_be_visible(timeout=_WITHIN)
    await expect(slots).to_have_count(0)
    await page.get_by_label("Show").select_option("Everything")
    await expect(slots).to_have_count(3)


@contextlib.asynccontextmanager
async def _at_once(path: str, *pages: Page) -> AsyncIterator[list[dict[str, object]]]:
    """Hold the requests of pages to a route until each has sent one, and yield the list of their answers."""
    answers: list[dict[str, object]] = []
    held: list[Route] = []
    all_held, all_answered = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        held.append(route)
        if len(held) == len(pages):
            all_held.set()
        await all_held.wait()
        response = await route.fetch()
        answers.append(await response.json())
        await route.fulfill(response=response)
        if len(answers) == len(pages):
            all_answered.set()

    for page in pages:
        await page.route(f"**/api/{path}", hold)
    yield answers
    await asyncio.wait_for(all_answered.wait(), 120)
    for page in pages:
        await page.unroute(f"**/api/{path}")


async def _two_replay_at_once(system: System, page: Page, other: Page) -> None:
    """Replay the same dead letters in two browsers at once, pause it in one, and resume it in the other one."""
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue("many.queue")
        await bury(channel, "many", [b"1"] * 600, queue="many.queue")
        for each in (page, other):
            await each.goto(f"{system.url}dead/?app=many")
            if system.delivers:
                # Before that a form can be opened all the same, and has its dry run later.
                await expect(each.get_by_role("button", name="Deliver and put back")).to_be_visible(timeout=_WITHIN)
                await each.get_by_role("button", name="Replay all…").click(timeout=_WITHIN)
                await expect(each.get_by_role("status").filter(has_text="No dry run yet")).to_be_visible()
                await each.get_by_role("button", name="Deliver and put back").click()
                await expect(each.get_by_label("Dry run")).to_contain_text("600 to queue many.queue", timeout=_WITHIN)
            else:
                await each.get_by_role("button", name="Replay all…").click(timeout=_WITHIN)
            await each.get_by_label("Messages a second, at most").fill("1")
            await expect(each.get_by_role("button", name="Replay 600 messages")).to_be_enabled()
        async with _at_once("replay", page, other) as answers:
            for each in (page, other):
                await each.get_by_role("button", name="Replay 600 messages").click()
        (refused,) = (str(answer["error"]) for answer in answers if "error" in answer)
        assert "a replay of the dead letters of 'many' by this machine is running" in refused
        jobs = [each.get_by_label("Replay or drop") for each in (page, other)]
        await jobs[0].get_by_role("button", name="Pause").click()
        await expect(jobs[1]).to_contain_text("paused", timeout=_WITHIN)
        await jobs[1].get_by_role("button", name="Resume").click()
        await jobs[0].get_by_role("button", name="Cancel").click(timeout=_WITHIN)
        for job in jobs:
            await expect(job).to_contain_text("then cancelled", timeout=_WITHIN)
        done = [int((await job.inner_text()).split()[1].rstrip(",")) for job in jobs]
        assert done[0] == done[1]
        await eventually_holds(system.broker, "many.queue", done[0])
        await eventually_holds(system.broker, "many.dead", 600 - done[0])


async def _message_is_described(page: Page, app: rabbitry.App) -> None:
    message = page.get_by_role("article").nth(0).locator(".message")
    await message.locator("summary").press("Enter", timeout=_WITHIN)
    await expect(message.get_by_role("region", name="Schema", exact=True)).to_contain_text("first.Order")
    order = message.get_by_role("region", name="Schema first.Order")
    await expect(order).to_contain_text(f'"description": "{_EVIL}"')
    async with page.expect_download(timeout=_WITHIN) as download:
        await page.get_by_role("link", name=f"AsyncAPI document of {app.name}").press("Enter")
    assert json.loads((await (await download.value).path()).read_bytes()) == schemas.document(app.spec())


async def _drift_is_told(page: Page, queue: str, *, is_known: bool) -> None:
    if not is_known:
        await expect(page.get_by_text("What the apps declare is not compared")).to_be_visible(timeout=_WITHIN)
        return
    drift = page.locator(".drift")
    await expect(drift).to_contain_text("1 difference between what the app declares", timeout=_WITHIN)
    await expect(drift).to_contain_text(f"queue '{queue}': x-max-length is 1000, and should not be set")
