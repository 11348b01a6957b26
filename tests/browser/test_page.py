"""The page in a real browser: samples appear, losses are told and mended, and nothing from the wire is markup."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import pytest
import websockets
from playwright.async_api import Browser, expect

import rabbitry
from rabbitry.runtime.http.pages import PEER_PAGE_LIMIT
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.timeout(240)
_WITHIN = 90_000
_SCHEMES: Final[tuple[Literal["dark", "light"], ...]] = ("dark", "light")


async def _open(
    browser: Browser, url: str, *, width: int = 1200, scheme: Literal["dark", "light"] = "light"
) -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    watched = Watched(page)
    await page.goto(url)
    return watched


async def _publish(url: str, *bodies: object, key: str = "from-the-test") -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            await channel.publish(text, exchange="system_info", routing_key=key)


def _host(name: str, **more: object) -> dict[str, object]:
    net = {"eth0": {"rx": 1, "tx": 2}}
    return {"hostname": name, "cpu": 0.5, "net": net, "memory": {"percent": 10}} | more


_ON_BOTH_BROKERS = pytest.mark.parametrize("broker_url", ["embedded", "rabbitmq"], indirect=True)


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """URL of the embedded broker: what a page shows of a sample is the same on both. `_ON_BOTH_BROKERS` names both."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'embedded')}_url")
    return url


@pytest.fixture
def web(broker_url: str) -> Iterator[str]:
    """The URL of a dashboard on a broker."""
    port = free_port()
    with commands.service("web", "--port", str(port), more={"RABBITRY_BROKER": broker_url}) as web:
        web.wait_for("broker connected")
        yield f"http://127.0.0.1:{port}/monitor/"


@_ON_BOTH_BROKERS
async def test_real_samples_of_this_machine_appear(browser: Browser, web: str, broker_url: str) -> None:
    with commands.service("monitor", "publish", "-k", "here", more={"RABBITRY_BROKER": broker_url}):
        watched = await _open(browser, web)
        page = watched.page
        await expect(page.locator(".card")).to_have_count(1, timeout=_WITHIN)
        await expect(page.locator(".card .figures")).to_contain_text("CPU")
        await expect(page.locator(".card canvas").first).to_be_visible()
        await expect(page.locator(".states")).to_contain_text("WebSocket connected")
        await expect(page.locator(".states")).to_contain_text("Broker connected")
        await page.get_by_text("Raw JSON").click()
        raw = page.locator("pre.raw")
        await expect(raw).to_contain_text('"hostname"')
        before = await raw.inner_text()
        await expect(raw).not_to_have_text(before, timeout=_WITHIN)  # the next one came
    assert watched.complaints == []


@ON_EMBEDDED
async def test_data_from_the_wire_is_shown_as_text(browser: Browser, web: str, broker_url: str) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    net = {evil: {"rx": 1, "tx": 2}}
    watched = await _open(browser, web)
    await _publish(
        broker_url,
        {"hostname": evil, "platform": evil, "cpu": 0.5, "net": net, "memory": {"percent": 10}},
        {"hostname": "other", "what": evil, "list": [1, 2, {"deep": evil}]},
        {"hostname": "numbers", "cpu": 1e308, "net": {"e": {"rx": -1, "tx": 1e300}}, "memory": "much"},
    )
    page = watched.page
    await expect(page.locator(".card")).to_have_count(3, timeout=_WITHIN)
    await expect(page.locator(f".card[data-host='{evil}']")).to_have_count(1)
    assert await page.locator("script:not([src], head > [type=importmap])").count() == 0
    assert await page.locator("main img, main script").count() == 0
    other = page.locator(".card[data-host='other']")
    await expect(other).to_contain_text("hold no CPU")
    await expect(other.locator("pre.raw")).to_contain_text("<script>alert(2)</script>")
    assert watched.complaints == []


async def test_impossible_percentages_are_not_shown(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web, width=320)
    space = {"total": 100, "used": 1e300, "percent": 1e300}
    await _publish(
        broker_url, _host("odd", cpu=-1, memory={"percent": -40}, disk=space, filesystems={"/x": space}, cores=[1e9])
    )
    card = watched.page.locator(".card[data-host='odd']")
    await expect(card).to_have_count(1, timeout=_WITHIN)
    await expect(card).to_contain_text("CPU")
    text = await card.inner_text()
    assert "%" not in text.replace("100 %", "").replace("50 %", "").replace("0 %", "")  # but the axis of the chart
    assert "full" not in text
    assert watched.complaints == []


async def test_a_phone_needs_no_scrolling_sideways(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web, width=360)
    long = "a-host-with-a-very-long-name." * 5
    await _publish(broker_url, {"hostname": long, "cpu": 0.5, "net": {"eth0": {"rx": 1e9, "tx": 2e9}}})
    page = watched.page
    await expect(page.locator(".card")).to_have_count(1, timeout=_WITHIN)
    for scheme in _SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        await expect(page.locator("html")).to_have_css("color-scheme", scheme)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in background.strip("rgb()").split(",")[:3]) / 3
        assert (brightness < 80) is (scheme == "dark")
    assert watched.complaints == []


NAMES = ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "é" * 400, "a\u202eb", "<b>x</b>"]


async def test_no_name_from_the_wire_stops_the_page(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web)
    page = watched.page
    for _ in range(2):
        for name in [*NAMES, ""]:
            odd = {each: {"rx": 1, "tx": 2, "read": 1, "write": 1, "percent": 50} for each in [*NAMES, ""]}
            fields = dict.fromkeys(NAMES, "text")
            sample = _host(
                name, net=odd, disks=odd, filesystems=odd, temperatures=dict.fromkeys(NAMES, 40), uplinks=NAMES
            )
            await _publish(broker_url, fields | sample, key=name[:99])
    await expect(page.locator(".card")).to_have_count(len(NAMES) + 1, timeout=_WITHIN)
    for name in ("__proto__", "constructor", "toString", "hasOwnProperty", r"a\u202eb", "(unnamed host)"):
        card = page.get_by_role("article", name=name, exact=True)
        await card.scroll_into_view_if_needed()
        await expect(card.locator("canvas")).to_have_count(2)
        await card.get_by_text("Details").click()
        await expect(card.locator(".details")).to_contain_text("__proto__")
        await expect(card.locator(".details")).to_contain_text(r"a\u202eb")
    await expect(page.locator("main")).not_to_contain_text("\u202e")
    assert watched.complaints == []


async def test_machines_of_one_name_are_cards_named_apart(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web)
    page = watched.page
    await _publish(broker_url, _host("vm", machine="a" * 16), _host("vm", machine="b" * 16), _host("other"), key="vm")
    await expect(page.locator(".card h2")).to_have_text(["other", "vm aaaaaaaa", "vm bbbbbbbb"], timeout=_WITHIN)
    await _publish(broker_url, _host("vm", machine="a" * 16), key="pi-2")
    await expect(page.locator(".card h2")).to_have_text(
        ["other", "vm pi-2", "vm vm · aaaaaaaa", "vm vm · bbbbbbbb"], timeout=_WITHIN
    )
    await page.get_by_label("Find").fill("pi-2")
    await expect(page.locator(".card")).to_have_count(1)
    await expect(page.get_by_role("article", name="vm, pi-2")).to_be_visible()
    assert watched.complaints == []


_SLOW_CLOCK = """const now = performance.now.bind(performance), begun = now(); window.later = 0;
performance.now = () => begun + (now() - begun) / 1000 + window.later"""


async def test_silence_full_disks_and_wrong_clocks_are_marked(browser: Browser, web: str, broker_url: str) -> None:
    def disk(percent: float) -> dict[str, float]:
        return {"total": 100, "used": percent, "free": 100 - percent, "percent": percent}

    watched = await _open(browser, web)
    page = watched.page
    # 20 s without a sample are silence. They pass when this test says so, however long its steps take.
    await page.evaluate(_SLOW_CLOCK)
    behind = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    await _publish(
        broker_url,
        _host("calm", disk=disk(40), timestamp=datetime.now(UTC).isoformat()),
        _host("late", disk=disk(50), timestamp=behind),
        _host("full", disk=disk(97)),
        _host("store", disk=disk(10), filesystems={"/": disk(10), "/srv": disk(88)}),
    )
    for name, level, text in (
        ("calm", "good", None),
        ("late", "warn", "clock 3 h 0 min behind"),
        ("full", "bad", "disk 97 % full"),
        ("store", "warn", "/srv 88 % full"),
    ):
        card = page.locator(f".card.{level}[data-host='{name}']")
        await expect(card).to_have_count(1, timeout=_WITHIN)
        await expect(card.locator(".badge")).to_have_text([text] if text else [])
    await page.get_by_label("Order").select_option("Disk")
    await expect(page.locator(".card h2")).to_have_text(["full", "store", "late", "calm"])
    await page.evaluate("window.later = 20_000")
    await expect(page.locator(".card[data-host='calm'] .badge")).to_contain_text("silent for", timeout=_WITHIN)
    await page.get_by_label("Order").select_option("Silence")
    await _publish(broker_url, _host("calm"))
    await expect(page.locator(".card h2").last).to_have_text("calm", timeout=_WITHIN)
    await expect(page.locator(".totals")).to_contain_text("3 silent")
    assert watched.complaints == []
    await _overview_tells_of_silence(browser, web.removesuffix("monitor/"))


async def _overview_tells_of_silence(browser: Browser, url: str) -> None:
    page = await browser.new_page()
    await page.add_init_script(_SLOW_CLOCK)
    await page.goto(url)
    await expect(page.locator(".card")).to_have_count(4, timeout=_WITHIN)
    await page.evaluate("window.later = 20_000")
    told = page.get_by_role("region", name="Needs attention").get_by_role("listitem").filter(has_text="machine store")
    await expect(told).to_contain_text("no sample since", timeout=_WITHIN)
    await told.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Machines")


async def test_bytes_and_percentages_agree_and_a_container_s_stand_beside_them(
    browser: Browser, web: str, broker_url: str
) -> None:
    gib = 2**30
    watched = await _open(browser, web)
    sample = _host(
        "h",
        # As psutil has it: the percentage is of what users can have, the bytes are of all blocks.
        disk={"total": 100 * gib, "used": 45 * gib, "free": 45 * gib, "percent": 50.0},
        memory={"total": 16 * gib, "available": 4 * gib, "used": 9 * gib, "percent": 75.0},
        container={"memory": {"total": gib, "used": gib / 2, "percent": 50.0}, "cpus": 1.5, "cpu": 0.25},
    )
    await _publish(broker_url, sample)
    figures = watched.page.locator(".card .figures")
    await expect(figures).to_contain_text("45.0 GiB of 90.0 GiB", timeout=_WITHIN)
    await expect(figures).to_contain_text("12.0 GiB of 16.0 GiB")
    await expect(figures).to_contain_text("container 25 % of 1.5 CPUs")
    await expect(figures).to_contain_text("container 50 % of 1.0 GiB")
    assert watched.complaints == []


async def test_omitted_rows_are_counted(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web)
    net = {f"veth{number}": {"rx": 1, "tx": 1} for number in range(100)} | {"zz9": {"rx": 1, "tx": 1}}
    await _publish(broker_url, _host("h", net=net, uplinks=["zz9"], cores=[0.5] * 70))
    details = watched.page.locator(".card .details")
    await expect(details).to_contain_text("and 37 more", timeout=_WITHIN)
    await expect(details).to_contain_text("and 6 more")
    await expect(details.locator("tbody th").first).to_have_text("zz9")  # what matters is not among those left out
    assert watched.complaints == []


async def test_a_machine_shows_its_last_hour_and_week(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web, width=320)
    page = watched.page
    await _publish(broker_url, _host("busy", memory={"percent": 96}, disk={"percent": 40}))
    card = page.locator(".card[data-host='busy']")
    await expect(card.locator(".badge.bad")).to_have_text("memory 96 % used", timeout=_WITHIN)
    await card.get_by_role("button", name="busy").focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="busy")
    await expect(dialog.get_by_role("status")).to_contain_text("by the second")
    await expect(dialog.locator("canvas")).to_have_count(2)
    for fetched in ("script[src*='uPlot.iife.min.js?v=']", "#history-style[href*='history.css?v=']"):
        await expect(page.locator(fetched)).to_have_count(1)
    rows = dialog.locator("tbody tr")
    assert await rows.all_inner_texts() == [
        "CPU\t50 %\t50 %\t50 %",
        "Memory\t96 %\t96 %\t96 %",
        "Fullest disk\t40 %\t40 %\t40 %",
        "Received\t1 B/s\t1 B/s\t1 B/s",
        "Sent\t2 B/s\t2 B/s\t2 B/s",
    ]
    await dialog.get_by_role("button", name="Last week").click()
    await expect(dialog.get_by_role("status")).to_contain_text("by the minute")
    assert await dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(card.get_by_role("button", name="busy")).to_be_focused()
    assert watched.complaints == []
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("status")).to_contain_text("by the second")
    assert await serious(page) == []  # last: it applies styles, of which the browser complains


async def test_a_notice_that_was_dismissed_stays_away(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web)
    page = watched.page
    await _publish(broker_url, b"[1]", key="bad-one")
    notice = page.locator(".notice")
    await expect(notice).to_contain_text("1 message was no sample", timeout=_WITHIN)
    await notice.get_by_role("button", name="Dismiss").click()
    await expect(notice).to_have_count(0)
    await _publish(broker_url, b"[2]", _host("h"), key="bad-one")
    await expect(page.locator(".totals")).to_contain_text("2 unreadable", timeout=_WITHIN)
    await expect(notice).to_have_count(0)
    await _publish(broker_url, b"[3]", key="another")
    await expect(notice).to_contain_text("another", timeout=_WITHIN)
    assert watched.complaints == []


async def test_a_refused_websocket_shows_the_reason(browser: Browser, web: str) -> None:
    async with contextlib.AsyncExitStack() as pages:
        for _ in range(PEER_PAGE_LIMIT):
            connecting = websockets.connect(web.replace("http", "ws").replace("monitor/", "ws"), proxy=None)
            socket = await pages.enter_async_context(connecting)
            await socket.recv()
        watched = await _open(browser, web)
        notice = watched.page.locator(".notice.bad")
        await expect(notice).to_contain_text("32 pages are open already from your address", timeout=_WITHIN)
        await expect(watched.page.locator(".states")).to_contain_text("next try in")
    await expect(watched.page.locator(".states")).to_contain_text("WebSocket connected", timeout=_WITHIN)
    await expect(notice).to_have_count(0)
    assert watched.complaints == []


async def test_the_narrowest_phone_needs_no_scrolling_sideways(browser: Browser, web: str, broker_url: str) -> None:
    watched = await _open(browser, web, width=320)
    page = watched.page
    long = "word" * 60
    space = {"total": 1e15, "used": 9.9e14, "free": 1e13, "percent": 99}
    names = {long: {"rx": 1e14, "tx": 1e14, "read": 1e14, "write": 1e14} | space}
    await _publish(broker_url, b"[1]", key=long)
    for name in (long, long, "short", long + long):
        sample = _host(
            name, net=names, disks=names, filesystems=names, platform=long, temperatures={long: 1e9}, disk=space
        )
        await _publish(broker_url, sample | {long: long, "load": [123.456] * 3, "cores": [1.0] * 9}, key=name[:200])
    await expect(page.locator(".card")).to_have_count(3, timeout=_WITHIN)
    for summary in await page.locator("summary").all():
        await summary.click()
    cut = """[...document.querySelectorAll('.figures *, table *, .list *, .legend *')]
        .filter((each) => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline')
        .map((each) => each.textContent)"""
    for scheme in _SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        await expect(page.locator("html")).to_have_css("color-scheme", scheme)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        assert await page.evaluate(cut) == []
    assert watched.complaints == []


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.faults)])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[BrokerProcess | RabbitMQ, str]]:
    """A broker to be killed and started again, and the URL of its management API."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("own_rabbitmq")
        yield server, management_url(server)
        return
    port = free_port()
    with BrokerProcess("--data", str(tmp_path), "--management-port", str(port)) as broker:
        yield broker, f"http://127.0.0.1:{port}"


async def test_a_killed_broker_is_reported_and_the_pages_recover(
    browser: Browser, mortal: tuple[BrokerProcess | RabbitMQ, str]
) -> None:
    broker, management = mortal
    more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": management}
    with commands.service("web", "--port", "0", more=more) as web:
        web.wait_for("broker connected")
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        await _declare(broker.url, "before")
        watched, queues = await _open(browser, f"{url}monitor/"), await _open(browser, f"{url}queues/")
        states, table = watched.page.locator(".states"), queues.page.locator(".rows")
        await expect(states).to_contain_text("Broker connected", timeout=_WITHIN)
        await expect(table).to_contain_text("before", timeout=_WITHIN)
        broker.kill()
        await expect(states).to_contain_text("Broker away since", timeout=_WITHIN)
        await expect(watched.page.locator(".notice.bad")).to_contain_text("The broker is away")
        await expect(queues.page.locator(".states")).to_contain_text("Management API away", timeout=_WITHIN)
        await expect(table).to_contain_text("before")  # the last that is known
        broker.start()
        await expect(states).to_contain_text("Broker connected", timeout=_WITHIN)
        await _publish(broker.url, {"hostname": "after", "cpu": 0.5, "net": {}})
        await expect(watched.page.locator(".card[data-host='after']")).to_have_count(1, timeout=_WITHIN)
        await _declare(broker.url, "later")
        await expect(table).to_contain_text("later", timeout=_WITHIN)
        await expect(table).to_contain_text("before")
        await expect(queues.page.locator(".states")).to_contain_text("Management API live")
        await expect(queues.page.locator(".states")).to_contain_text("Telemetry live", timeout=_WITHIN)
        assert watched.complaints == queues.complaints == []


async def _declare(url: str, queue: str) -> None:
    async with rabbitry.connect(url) as connection:
        await (await connection.channel()).declare_queue(queue, durable=True)


@ON_EMBEDDED
async def test_a_killed_dashboard_is_reported_and_the_page_recovers(browser: Browser, broker_url: str) -> None:
    port = free_port()
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("broker connected")
        watched = await _open(browser, f"http://127.0.0.1:{port}/monitor/")
        states = watched.page.locator(".states")
        await expect(states).to_contain_text("WebSocket connected", timeout=_WITHIN)
        web.process.kill()
        web.process.wait()
        await expect(states).to_contain_text("WebSocket disconnected, next try in", timeout=_WITHIN)
    with commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("broker connected")
        await expect(states).to_contain_text("WebSocket connected", timeout=_WITHIN)
