"""The commands about apps, as a user runs them."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

import rabbitry
from rabbitry.flow.blocking import BlockingPublisher
from rabbitry.flow.wiring.delays import level_name
from tests.flow._running import counts, dead_of, eventually_consumed, eventually_dead, eventually_holds, put
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.terminals import shown_by
from tests.support.waiting import eventually_blocking

SHOP = """
import time
import msgspec, rabbitry

class Order(msgspec.Struct):
    n: int

app = rabbitry.App("shop")

@app.stage("order", then="bill", attempts=1)
async def take(order: Order) -> Order:
    if order.n < 0:
        raise ValueError("below zero")
    return order

@app.stage("bill", then="paid")
def bill(order: Order) -> Order:
    return order

@app.stage("slow", concurrency=1)
def slow(seconds: str) -> None:
    print("slow began", flush=True)
    time.sleep(float(seconds))

app.output("paid", queue="shop.paid")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rabbitry.App:
    """A module `shop_of_tests` in the working directory and on the path of child processes."""
    (tmp_path / "shop_of_tests.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop_of_tests", raising=False)
    import importlib

    app = importlib.import_module("shop_of_tests").app
    assert isinstance(app, rabbitry.App)
    return app


def run(*arguments: str, url: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, with `text` as its input."""
    return commands.run(*arguments, more={"RABBITRY_BROKER": url}, text=text)


def test_lines_are_published_worked_on_and_the_worker_stops_at_a_signal(shop: rabbitry.App, broker_url: str) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(50))
    done = run("publish", "shop_of_tests:app", "order", "--json", url=broker_url, text=lines)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"published": 50, "key": "order"}), done.stderr
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("worker", "shop_of_tests:app", "--health-port", "0", more=more) as worker:
        port = worker.wait_for(r"health: http://127\.0\.0\.1:(\d+)/health")[1]
        asyncio.run(eventually_holds(broker_url, "shop.paid", 50))

        def billed() -> int:
            health = httpx.get(f"http://127.0.0.1:{port}/health", timeout=60).json()
            return int(health["stages"]["bill"].get("done", 0))

        eventually_blocking(lambda: billed() == 50, "all to be confirmed and counted")
        worker.process.terminate()
        assert worker.process.wait(60) == 0, worker.output
    assert asyncio.run(counts(broker_url, ["shop.take", "shop.bill", "shop.dead"])) == {
        "shop.take": 0, "shop.bill": 0, "shop.dead": 0,
    }  # fmt: skip


def test_a_health_port_that_is_taken_ends_the_worker_with_one_line(shop: rabbitry.App, embedded_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run("worker", "shop_of_tests:app", "--log-level", "error", "--health-port", str(port), url=embedded_url)
    assert done.returncode == 2
    assert done.stderr == (
        f"rabbitry: can't serve /health on 127.0.0.1 port {port}: another program listens there; choose another port\n"
    )


def test_a_worker_that_waits_for_its_broker_is_alive_and_not_ready(shop: rabbitry.App) -> None:
    more = {"RABBITRY_BROKER": f"amqp://127.0.0.1:{free_port()}/"}
    options = ("--health-port", "0", "--health-host", "127.0.0.2")
    with commands.service("worker", "shop_of_tests:app", *options, more=more) as worker:
        url = worker.wait_for(r"health: (http://127\.0\.0\.2:\d+)/health")[1]
        codes = [httpx.get(f"{url}/{path}", timeout=60).status_code for path in ("live", "health", "metrics")]
        assert codes == [200, 503, 200]
        worker.process.terminate()
        assert worker.process.wait(60) == 0, worker.output


def test_several_processes_work_and_stop_together(shop: rabbitry.App, rabbitmq_url: str) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(200))
    assert run("publish", "shop_of_tests:app", "order", url=rabbitmq_url, text=lines).returncode == 0
    more = {"RABBITRY_BROKER": rabbitmq_url}
    first = free_port()
    options = ("--processes", "2", "--health-host", "127.0.0.2", "--health-port", str(first))
    with commands.service("worker", "shop_of_tests:app", *options, more=more) as worker:
        asyncio.run(eventually_holds(rabbitmq_url, "shop.paid", 200))

        def billed() -> float:
            """Return what Prometheus finds on the ports of both processes."""
            pages = [httpx.get(f"http://127.0.0.2:{port}/metrics", timeout=60).text for port in (first, first + 1)]
            found = [re.findall(r'^rabbitry_stage_done_total\{.*stage="bill".*\} (\S+)$', page, re.M) for page in pages]
            return sum(float(value) for values in found for value in values)

        eventually_blocking(lambda: billed() == 200, "all to be counted")
        worker.process.terminate()
        assert worker.process.wait(60) == 0, worker.output
    assert asyncio.run(counts(rabbitmq_url, ["shop.dead"])) == {"shop.dead": 0}


def test_a_second_signal_ends_at_once_and_the_message_comes_again(shop: rabbitry.App, rabbitmq_url: str) -> None:
    asyncio.run(shop.publish("30", key="slow", url=rabbitmq_url))
    more = {"RABBITRY_BROKER": rabbitmq_url}
    with commands.service("worker", "shop_of_tests:app", "--deadline", "30", more=more) as worker:
        worker.wait_for("slow began")
        worker.process.send_signal(signal.SIGINT)
        eventually_blocking(lambda: _consumers(rabbitmq_url) == 0, "the consumer to be cancelled")
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(60) == 130, worker.output
    asyncio.run(eventually_holds(rabbitmq_url, "shop.slow", 1))


def _consumers(url: str) -> int:
    async def ask() -> int:
        async with rabbitry.connect(url) as connection, await connection.channel() as channel:
            return (await channel.declare_queue("shop.slow", passive=True)).consumer_count

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("no_such_module:app", 2, "module 'no_such_module' does not import: ModuleNotFoundError"),
        ("shop_of_tests", 2, "MODULE:APP"),
        ("shop_of_tests:nothing", 2, "has no 'nothing'"),
        ("shop_of_tests:Order", 2, "no App, called 'Order'"),
        ("broken_of_tests:app", 2, "broken_of_tests.py:5: lost: then='away' leads nowhere"),
    ],
)
def test_a_reference_to_no_app_is_refused_before_any_declaration(
    shop: rabbitry.App, tmp_path: Path, path: str, code: int, text: str
) -> None:
    (tmp_path / "broken_of_tests.py").write_text(
        'import rabbitry\n\napp = rabbitry.App("broken")\n\n@app.stage("in", then="away")\n'
        "async def lost(x: str) -> str:\n    return x\n"
    )
    done = run("worker", path, url=f"amqp://127.0.0.1:{free_port()}/")
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_of_a_worker_show_the_cause(shop: rabbitry.App, rabbitmq_url: str) -> None:
    away = f"amqp://127.0.0.1:{free_port()}/"
    assert run("worker", "shop_of_tests:app", "--connect-attempts", "1", url=away).returncode == 3
    refused = rabbitmq_url.replace("guest:guest@", "guest:wrong@")
    assert run("worker", "shop_of_tests:app", url=refused).returncode == 3
    assert run("worker", "shop_of_tests:app", "--stage", "none", url=rabbitmq_url).returncode == 2

    async def other() -> None:
        async with rabbitry.connect(rabbitmq_url) as connection:
            await (await connection.channel()).declare_queue("shop.take", durable=False)

    asyncio.run(other())
    done = run("worker", "shop_of_tests:app", "--strict", url=rabbitmq_url)
    assert done.returncode == 1
    assert "queue 'shop.take'" in done.stderr
    assert asyncio.run(counts(rabbitmq_url, ["shop.bill"])) == {"shop.bill": -1}


def test_an_undecodable_line_ends_publishing(shop: rabbitry.App, embedded_url: str) -> None:
    done = run("publish", "shop_of_tests:app", "order", url=embedded_url, text='{"n": 1}\n{"n": "x"}\n{"n": 3}\n')
    assert done.returncode == 1
    assert "line 2: Expected `int`, got `str` - at `$.n`" in done.stderr
    assert asyncio.run(counts(embedded_url, ["shop.take"])) == {"shop.take": 1}
    assert run("publish", "shop_of_tests:app", "nowhere", url=embedded_url, text="{}\n").returncode == 2


def test_lines_are_published_for_later(shop: rabbitry.App, embedded_url: str) -> None:
    words = ("publish", "shop_of_tests:app", "slow")
    both = run(*words, "--after", "5", "--at", "2028-02-29T08:00:00+0100", url=embedded_url, text="1\n")
    assert both.returncode == 2
    assert "give one of them" in both.stderr
    alone = run(*words, "--dead", url=embedded_url, text="1\n")
    assert (alone.returncode, "give --expires SECONDS too" in alone.stderr) == (2, True)
    for option, text in (("--after", "--after -1: give seconds"), ("--expires", "--expires -1: give positive seconds")):
        wrong = run(*words, option, "-1", url=embedded_url, text="1\n")
        assert (wrong.returncode, text in wrong.stderr) == (2, True), wrong.stderr
    at = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%dT%H:%M:%S%z}"
    later = run(*words, "--at", at, "--expires", "60", "--dead", url=embedded_url, text="1\n")
    assert later.returncode == 0, later.stderr
    now = run(*words, "--after", "0", "--expires", "600", url=embedded_url, text="1\n")
    assert now.returncode == 0, now.stderr
    assert asyncio.run(counts(embedded_url, ["shop.slow"])) == {"shop.slow": 1}
    names = [level_name(level) for level in range(27)]
    assert sum(asyncio.run(counts(embedded_url, names)).values()) == 1


def test_publishing_shows_its_progress_on_a_terminal(shop: rabbitry.App, embedded_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rabbitry", "publish", "shop_of_tests:app", "order"]
    lines = tmp_path / "lines"
    lines.write_text("".join(f'{{"n": {n}}}\n' for n in range(3000)))
    environment = commands.environment({"RABBITRY_BROKER": embedded_url, "TERM": "xterm"})
    with lines.open("rb") as stdin:
        shown, output = shown_by(command, environment=environment, stdin=stdin)
    assert output == b"published 3000 messages with key order\n"
    assert b"published" in shown
    assert b"000/?" in shown


def test_a_stage_is_paused_for_processes_that_are_killed_and_come_again_and_resumed(
    shop: rabbitry.App, broker_url: str
) -> None:
    more = {"RABBITRY_BROKER": broker_url}

    def workers() -> list[int]:
        """Return the process ids of the two workers, as children of the command."""
        path = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    with commands.service("worker", "shop_of_tests:app", "--processes", "2", more=more) as worker:
        asyncio.run(eventually_consumed(broker_url, "shop.bill", 2))
        done = run("pause", "shop_of_tests:app", "bill", "--why", "the\x1bbank", "--json", url=broker_url)
        first = json.loads(done.stdout)
        assert (first["stage"], first["why"], first["paused"]) == ("bill", "the\x1bbank", True)
        asyncio.run(eventually_consumed(broker_url, "shop.bill", 0))
        before = workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert run("publish", "shop_of_tests:app", "order", url=broker_url, text='{"n": 1}\n').returncode == 0
        asyncio.run(eventually_holds(broker_url, "shop.bill", 1))  # passed on by workers that came again
        eventually_blocking(lambda: len(workers()) == 2 and not set(before) & set(workers()), "other workers")
        assert "already paused: shop bill, at 2" in run("pause", "shop", "bill", url=broker_url).stdout
        shown = run("paused", "shop_of_tests:app", url=broker_url)
        assert (shown.returncode, shown.stdout.startswith("shop bill, at 2"), "\x1b" in shown.stdout) == (
            0,
            True,
            False,
        )
        assert json.loads(run("paused", "shop_of_tests:app", "--json", url=broker_url).stdout) == {
            name: value for name, value in first.items() if name != "paused"
        }
        assert asyncio.run(counts(broker_url, ["shop.bill"])) == {"shop.bill": 1}, "nobody takes it"
        assert run("resume", "shop", "bill", url=broker_url).stdout == "resumed shop bill\n"
        asyncio.run(eventually_holds(broker_url, "shop.paid", 1))
        assert json.loads(run("resume", "shop", "bill", "--json", url=broker_url).stdout)["resumed"] is False
        assert run("paused", "shop_of_tests:app", url=broker_url).stderr == "rabbitry: no stage is paused\n"
        for stage in ("shop_of_tests:app", "shop"):
            assert run("pause", stage, "none", url=broker_url).returncode == 2
        worker.process.terminate()
        worker.process.wait(60)


def test_a_job_is_cancelled_by_its_id(broker_url: str) -> None:
    done = run("cancel", "films", "no-job", url=broker_url)
    assert done.returncode == 2
    assert "its jobs can be cancelled once a worker or publisher of App('films', cancellable=True)" in done.stderr
    app = rabbitry.App("films", cancellable=True)

    @app.stage("in", replies=True)
    async def handle(text: str) -> None: ...

    async def call(blocking: BlockingPublisher) -> None:
        async with app.worker(broker_url, connect_attempts=1):
            with pytest.raises(rabbitry.CallCancelled):
                await asyncio.to_thread(blocking.call, "x", key="in", timeout=100, id="of-a-call")

    with app.publisher_blocking(broker_url) as publisher:
        assert run("cancel", "films", "of-a-call", url=broker_url).stdout == "cancelled job of-a-call of films\n"
        assert run("cancel", "films", "a\n\x1b[1m", url=broker_url).stdout == "cancelled job a  [1m of films\n"
        asyncio.run(call(publisher))


def test_dead_letters_are_listed_shown_replayed_and_dropped(shop: rabbitry.App, broker_url: str) -> None:
    async def fail() -> None:
        async with shop.worker(broker_url, connect_attempts=1):
            for n in (-1, -2, -3):
                await shop.publish({"n": n}, key="order", url=broker_url)
            await put(broker_url, "shop.bill", b"no json")
            await eventually_dead(broker_url, shop, 4)

    asyncio.run(fail())
    listed = [json.loads(line) for line in run("dead", "list", "shop", "--json", url=broker_url).stdout.splitlines()]
    assert sorted(line["body"] for line in listed) == ["no json", '{"n":-1}', '{"n":-2}', '{"n":-3}']
    first = next(line for line in listed if line["body"] == '{"n":-1}')
    done = run("dead", "show", "shop", first["id"], url=broker_url)
    assert "\n  File " in done.stdout, "a traceback keeps its indents"
    assert done.stderr == ""
    shown = done.stdout
    assert "ValueError: below zero" in shown
    assert "shop_of_tests.py" in shown
    assert '{"n":-1}' in shown
    assert "traceback" in run("dead", "show", "shop", first["id"][:8], url=broker_url).stdout.lower()
    for command in (("show",), ("drop", "--id"), ("replay", "--id")):
        done = run("dead", command[0], "shop", *command[1:], "unknown", url=broker_url)
        assert (done.returncode, done.stdout, "unknown" in done.stderr) == (1, "", True)
    assert run("dead", "drop", "shop", "--id", first["id"][:8], url=broker_url).stdout == "dropped 1\n"
    assert run("dead", "replay", "shop", "--reason", "failed", url=broker_url).stdout == "replayed 2\n"
    asyncio.run(eventually_holds(broker_url, "shop.take", 2))
    asyncio.run(eventually_holds(broker_url, "shop.dead", 1))
    done = run("dead", "drop", "shop", url=broker_url)
    assert (done.returncode, "--all" in done.stderr) == (2, True)
    assert run("dead", "list", "none", url=broker_url).returncode == 1
    assert run("dead", "list", "shop", "--stage", "none", url=broker_url).stderr == (
        "rabbitry: no such dead letters of shop\n"
    )
    assert run("dead", "list", "shop", "--stage", "none", "--json", url=broker_url).stderr == ""
    assert run("dead", "show", "shop", "none", url=broker_url).returncode == 1
    assert [letter.body for letter in asyncio.run(dead_of(broker_url, shop))] == [b"no json"]


def test_the_topology_is_shown_exported_and_checked(shop: rabbitry.App) -> None:
    shown = run("topology", "show", "shop_of_tests:app", url="")
    assert "exchange  shop  direct durable" in shown.stdout
    assert "binding   shop --order--> shop.take" in shown.stdout
    exported = json.loads(run("topology", "export", "shop_of_tests:app", "--vhost", "v", url="").stdout)
    assert {"name": "shop.dead", "vhost": "v", "durable": True, "auto_delete": False, "arguments": {}} in exported[
        "queues"
    ]


def test_a_check_finds_bindings_if_there_is_a_management_api(shop: rabbitry.App, own_rabbitmq: RabbitMQ) -> None:
    url, management = own_rabbitmq.url, own_rabbitmq.management_url
    assert management is not None
    arguments = ("topology", "check", "shop_of_tests:app")
    done = run(*arguments, url=url)
    assert done.returncode == 1
    assert "queue 'shop.take': missing" in done.stdout
    assert "bindings were not checked" in done.stderr
    asyncio.run(_declare(shop, url))
    done = run(*arguments, url=url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing is missing, and nothing is declared with other flags" in done.stderr
    done = run(*arguments, "--management", management, url=url)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    asyncio.run(_unbind(url))
    done = run(*arguments, "--management", management, url=url)
    assert done.stdout == "binding of queue 'shop.take' to exchange 'shop' with key 'order': missing\n"


async def _declare(app: rabbitry.App, url: str) -> None:
    async with app.publisher(url):
        pass


async def _unbind(url: str) -> None:
    async with rabbitry.connect(url) as connection:
        await (await connection.channel()).unbind_queue("shop.take", "shop", "order")


def test_both_kinds_of_subscriber_get_the_news(broker_url: str) -> None:
    folder = Path(__file__).parents[2] / "examples" / "publish_subscribe"
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(folder)}
    assert commands.run("publish", "news:app", "news", more=more, text="it rains\n").returncode == 0
    for stage, text in (("archive", "archived: it rains"), ("notify", "told everybody: it rains")):
        with commands.service("worker", "news:app", "--stage", stage, more=more) as worker:
            worker.wait_for(text)
            os.kill(worker.process.pid, signal.SIGTERM)
            assert worker.process.wait(60) == 0, worker.output


@ON_EMBEDDED
def test_plain_declares_an_app_as_programs_with_the_defaults_do(broker_url: str, shop: rabbitry.App) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    for number, options in enumerate([(), ("--processes", "2")], 1):
        done = run("publish", "shop_of_tests:app", "order", "--plain", url=broker_url, text='{"n": 1}\n')
        assert (done.returncode, done.stderr) == (0, "")
        asyncio.run(_declare_plain(broker_url))
        with commands.service("worker", "shop_of_tests:app", "--plain", "--strict", *options, more=more) as worker:
            asyncio.run(eventually_holds(broker_url, "shop.paid", number))
            worker.process.terminate()
            assert worker.process.wait(60) == 0, worker.output
            assert "exists with other flags" not in worker.output


async def _declare_plain(url: str) -> None:
    """Declare with the library's defaults: 406 where that differs."""
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("shop", "direct")
        await channel.declare_queue("shop.take")


def test_plain_is_refused_for_an_app_with_quorum_queues(shop: rabbitry.App) -> None:
    shop_module = Path("shop_of_tests.py")
    shop_module.write_text(SHOP.replace('App("shop")', 'App("shop", queue_type="quorum")'))
    done = commands.run("worker", "shop_of_tests:app", "--plain")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "run it without --plain" in done.stderr
