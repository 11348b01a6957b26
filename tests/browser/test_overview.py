"""The overview in a real browser, with a real system behind it: what flows, on both brokers."""

import asyncio
import itertools
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

import rabbitry
from rabbitry.amqp.client import Channel
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.management import broker_and_management

pytestmark = pytest.mark.timeout(300)
_WITHIN = 120_000
_EVIL = "<img src=x onerror=alert(1)>"


async def _open(browser: Browser, url: str, *, motion: Literal["no-preference", "reduce"] = "reduce") -> Watched:
    """Open the overview; without motion, which takes most of the CPU of a page with traffic."""
    page = await browser.new_page(viewport={"width": 1300, "height": 900}, reduced_motion=motion)
    watched = Watched(page)
    await page.goto(url)
    return watched


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


@pytest.fixture
def web(system: tuple[str, str]) -> Iterator[str]:
    """The URL of a dashboard on a broker."""
    more = {"RABBITRY_BROKER": system[0], "RABBITRY_MANAGEMENT": system[1]}
    with commands.service("web", "--port", "0", more=more) as web:
        yield web.wait_for(r"dashboard on (http://\S+/)")[1]


@pytest_asyncio.fixture(loop_scope="session")
async def traffic(system: tuple[str, str]) -> AsyncIterator[Channel]:
    """A program that publishes to an exchange, and another that consumes from its queue."""
    async with (
        rabbitry.connect(system[0], name="the producer") as producing,
        rabbitry.connect(system[0], name="the taker") as taking,
    ):
        channel, other = await producing.channel(), await taking.channel()
        await channel.declare_exchange("news", "topic", durable=True)
        for queue in ("news.read", "news.waiting", _EVIL):
            await channel.declare_queue(queue, durable=True)
            await channel.bind_queue(queue, "news", queue.removeprefix("news."))
        working = [asyncio.create_task(_publish(channel)), asyncio.create_task(_take(other))]
        yield channel
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def _publish(channel: Channel) -> None:
    while True:
        for key in ("read", "waiting", _EVIL):
            await channel.publish(b"x", exchange="news", routing_key=key)
        await asyncio.sleep(0.05)


async def _take(channel: Channel) -> None:
    async with channel.consume("news.read") as deliveries:
        async for delivery in deliveries:
            delivery.ack()


def _thing(kind: str, name: str) -> str:
    return f".thing[data-kind={kind}][aria-label^='{kind} {name}']"


async def test_messages_are_seen_to_flow_from_program_to_program(browser: Browser, web: str, traffic: Channel) -> None:
    watched = await _open(browser, web, motion="no-preference")
    page = watched.page
    for kind, name in (
        ("publisher", "the producer"),
        ("exchange", "news"),
        ("queue", "news.read"),
        ("queue", "news.waiting"),
        ("consumer", "the taker"),
    ):
        await expect(page.locator(_thing(kind, name))).to_have_count(1, timeout=_WITHIN)
    await expect(page.locator(".flow[data-moving]").nth(2)).to_be_attached(timeout=_WITHIN)
    await expect(page.locator(f"{_thing('queue', 'news.waiting')} .depth")).to_be_attached(timeout=_WITHIN)
    await expect(page.locator(".states")).to_contain_text("Management API live")
    assert await page.locator("main img, main script").count() == 0  # the name of a queue is text
    assert watched.complaints == []


@on_embedded("system")
async def test_a_thing_shows_its_figures_and_leads_to_others_by_keys(
    browser: Browser, web: str, traffic: Channel
) -> None:
    watched = await _open(browser, web)
    page = watched.page
    await page.locator(_thing("publisher", "the producer")).focus(timeout=_WITHIN)
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".thing[data-kind=exchange]:focus")).to_have_count(1)
    await page.locator(_thing("queue", "news.waiting")).focus()
    await page.keyboard.press("Enter")
    chosen = page.get_by_role("complementary", name="Queue news.waiting")
    await expect(chosen).to_contain_text("Ready")
    await expect(chosen).to_contain_text("key waiting")
    await chosen.get_by_role("button", name="news", exact=True).click()
    exchange = page.get_by_role("complementary", name="Exchange news")
    await expect(exchange.get_by_role("button", name="news.read")).to_be_visible()
    await expect(exchange).to_contain_text(_EVIL)
    await page.reload()  # the address names it
    await expect(exchange).to_contain_text("topic", timeout=_WITHIN)
    await exchange.get_by_role("button", name="Close").focus()
    await page.keyboard.press("Escape")
    await expect(exchange).to_have_count(0)
    await expect(page.locator(_thing("exchange", "news"))).to_be_focused()
    assert watched.complaints == []


@on_embedded("system")
async def test_filter_search_table_and_freeze(browser: Browser, web: str, traffic: Channel) -> None:
    watched = await _open(browser, web)
    page = watched.page
    read, waiting = (page.locator(_thing("queue", name)) for name in ("news.read", "news.waiting"))
    await expect(waiting).to_have_count(1, timeout=_WITHIN)
    await page.get_by_label("Filter").fill("taker")
    await expect(waiting).to_have_count(0)
    await expect(read).to_have_count(1)  # what the taker takes from
    await page.get_by_label("Filter").fill("")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("news.wait")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("complementary", name="Queue news.waiting")).to_be_visible()
    await page.get_by_text("The same as a table").click()
    row = page.get_by_role("row").filter(has_text="the producer")
    await expect(row).to_contain_text("moving")
    await expect(row).to_contain_text("news")
    await page.get_by_role("button", name="Freeze").click()
    frozen = await waiting.get_attribute("aria-label")
    await traffic.declare_queue("later", durable=True)
    fresh = await _open(browser, web)
    await expect(fresh.page.locator(_thing("queue", "later"))).to_have_count(1, timeout=_WITHIN)
    assert await waiting.get_attribute("aria-label") == frozen
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(_thing("queue", "later"))).to_have_count(1, timeout=_WITHIN)
    assert watched.complaints == []


@on_embedded("system")
async def test_a_queue_that_grows_and_nobody_reads_needs_attention(
    browser: Browser, web: str, traffic: Channel
) -> None:
    watched = await _open(browser, web)
    wrong = watched.page.get_by_role("region", name="Needs attention").get_by_role("listitem")
    await expect(wrong.filter(has_text="news.waiting")).to_contain_text("start its consumer", timeout=_WITHIN)
    await expect(wrong.filter(has_text=_EVIL)).to_have_count(1)
    await expect(wrong.filter(has_text="news.read")).to_have_count(0)
    assert watched.complaints == []


@on_embedded("system")
async def test_a_new_thing_moves_no_other(browser: Browser, web: str, traffic: Channel) -> None:
    watched = await _open(browser, web)
    page = watched.page
    for kind, name in (("publisher", "the producer"), ("queue", "news.waiting"), ("consumer", "the taker")):
        await expect(page.locator(_thing(kind, name))).to_have_count(1, timeout=_WITHIN)
    places = """Object.fromEntries([...document.querySelectorAll(".thing")]
        .map((each) => [each.dataset.key, each.getAttribute("transform")]))"""
    before = await page.evaluate(places)
    for name in ("a-first", "zz-last"):
        await traffic.declare_queue(name, durable=True)
    await expect(page.locator(_thing("queue", "zz-last"))).to_have_count(1, timeout=_WITHIN)
    after = await page.evaluate(places)
    stayed = before.keys() & after.keys()
    assert {"p:the broker's machine/the producer", "q://news.read", "q://news.waiting", "x://news"} <= stayed
    assert {key: after[key] for key in stayed} == {key: before[key] for key in stayed}


@on_embedded("system")
async def test_axe_finds_nothing_serious(browser: Browser, web: str, traffic: Channel) -> None:
    page = (await _open(browser, web)).page
    await page.locator(_thing("queue", "news.read")).click(timeout=_WITHIN)
    await expect(page.get_by_role("complementary")).to_be_visible()
    await page.get_by_text("The same as a table").click()
    schemes: tuple[Literal["dark", "light"], ...] = ("dark", "light")
    for width, scheme in itertools.product((320, 1300), schemes):
        await page.set_viewport_size({"width": width, "height": 800})
        await page.emulate_media(color_scheme=scheme)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await serious(page) == []


async def test_a_newcomer_tries_what_the_page_suggests(browser: Browser) -> None:
    ports = ("--port", "0", "--web-port", "0", "--http-port", "0", "--management-port", "0")
    with commands.service("up", "--memory", "--apps", "grading", *ports) as up:
        url = up.wait_for(r"live: (http://\S+/)")[1]
        page = (await _open(browser, url)).page
        suggested = page.get_by_role("region", name="To try").locator("code")
        await expect(suggested).to_have_count(3, timeout=_WITHIN)
        other = (await _open(browser, url)).page
        await other.get_by_role("region", name="To try").get_by_role("button", name="Dismiss").click(timeout=_WITHIN)
        await expect(other.get_by_role("region", name="To try")).to_have_count(0)
        submit, produce, consume = [shlex.split(text)[1:] for text in await suggested.all_inner_texts()]
        for command, rest in ((submit, 2), (produce, 1)):
            assert (await asyncio.to_thread(commands.run, *command)).returncode == 0
            await expect(suggested).to_have_count(rest, timeout=_WITHIN)
        with commands.service(*consume):
            await expect(suggested).to_have_count(0, timeout=_WITHIN)
        await page.reload()  # it is remembered
        await expect(page.locator(_thing("queue", "worker_queue"))).to_have_count(1, timeout=_WITHIN)
        await expect(suggested).to_have_count(0)


_MANY = r"""async () => {
  const { Slots, grouped, measure, part, MOST } = await import("./static/overview/layout.js");
  const { Picture } = await import("./static/overview/picture.js");
  const { html, render } = await import("./static/html.js");
  const nodes = new Map(), edges = new Map();
  for (let at = 0; at < 1000; at += 1) {
    const kind = ["publisher", "exchange", "queue", "consumer"][at % 4];
    const app = `app${at % 13}`;
    nodes.set(`${kind[0]}:${at}`, { kind, name: `${app}.thing${at}`, app, host: "", at: 1, rate: 1, ready: 1 });
    const from = `${["p", "e", "q"][at % 4 - 1]}:${at - 1}`;
    if (at % 4) edges.set(`e:${at}`, { from, to: `${kind[0]}:${at}`, rate: 1, keys: [] });
  }
  const slots = new Slots();
  slots.fit(nodes, edges);
  const whole = measure(slots, edges, 1200);
  const few = grouped(nodes, edges, new Set());
  const opened = grouped(nodes, edges, new Set(["g:q:app3"]));
  const place = document.getElementById("page");
  render(null, place);
  const given = { drawn: { nodes, edges }, slots, now: 1, selected: null, onSelect: () => {} };
  render(html`<${Picture} ...${given} />`, place);
  const steep = part({ x1: 0, y1: 900, c: 50, x2: 100, y2: 0 }, 300, 600).match(/[\d.]+/g).map(Number);
  return {
    part: [steep.length, Math.round(steep[1]), Math.round(steep[7])],
    places: new Set([...whole.boxes.values()].map(({ x, y }) => `${x} ${y}`)).size, curves: whole.curves.size,
    few: few.nodes.size, rate: [...few.nodes.values()].reduce((sum, node) => sum + node.rate, 0), most: MOST,
    opened: [...opened.nodes.values()].filter((node) => !node.members).length,
  };
}"""


@on_embedded("system")
async def test_very_many_things_are_grouped_and_open(browser: Browser, web: str) -> None:
    page = (await _open(browser, web)).page
    found = await page.evaluate(_MANY)
    assert found.pop("part") == [8, 600, 300]
    assert found == {"places": 1000, "curves": 750, "few": 52, "rate": 1000, "most": 150, "opened": 19}
    things = page.locator(".thing")
    assert 20 < await things.count() < 150
    await page.locator(".thing[tabindex='0']").focus()
    for _ in range(25):
        await page.keyboard.press("ArrowDown")
    await expect(page.locator(".thing:focus")).to_have_attribute("transform", re.compile(rf" {44 + 25 * 46}\)"))
    await expect(page.locator(".thing:focus")).to_be_in_viewport()
    await expect(page.locator(".thing[data-kind=consumer]").nth(3)).to_be_attached()
    assert await things.count() < 150
