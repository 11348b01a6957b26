"""The five original programs beside ours, started before and after them, on both brokers (docs/originals.md).

test_amqplib.py has the fifth one, which speaks AMQP 0-8 by py-amqplib.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

import rabbitry
from rabbitry.apps.grading.records import Database, course
from rabbitry.apps.grading.stages import APP
from rabbitry.apps.monitor.sampling import hostname
from rabbitry.exceptions import NotFound
from rabbitry.flow.wiring.dead_letters import dead_queue
from tests.interop import originals
from tests.support import commands
from tests.support.commands import Service
from tests.support.waiting import eventually_blocking

_FREE = ("--port", "0", "--web-port", "0", "--http-port", "0", "--management-port", "0")
# Not all four combinations: the order of starts matters for declarations, which are the same on both brokers.
_ORDER = pytest.mark.parametrize(
    ("broker_url", "first"), [("embedded", "ours"), ("rabbitmq", "originals")], indirect=["broker_url"]
)


def _set(folder: Path, url: str) -> dict[str, str]:
    return {"RABBITRY_BROKER": url, "RABBITRY_DATABASE": f"sqlite:///{folder / 'records.sqlite3'}"}


@contextlib.contextmanager
def _service(folder: Path, url: str, *arguments: str, says: str) -> Iterator[Service]:
    """Run a `rabbitry` command until the block is left; it must exit with 0."""
    with commands.service(*arguments, more=_set(folder, url)) as service:
        service.wait_for(says)
        yield service
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(90) == 0, service.output


@contextlib.contextmanager
def _up(folder: Path, url: str) -> Iterator[str]:
    """Run `rabbitry up --plain` on a broker; return the page's URL."""
    with _service(folder, url, "up", *_FREE, "--plain", says=r"live: http") as up:
        yield up.wait_for(r"live: (http://\S+/)")[1]


def _grading(folder: Path, url: str, role: str, *options: str) -> contextlib.AbstractContextManager[Service]:
    """Run one of Rabbitry's roles, or all with `run`."""
    return _service(folder, url, "grading", role, "--plain", *options, says=r"grading: \w+")


def _original(stack: contextlib.ExitStack, name: str, url: str, *arguments: str) -> Service:
    service = stack.enter_context(originals.run(name, url, *arguments))
    service.wait_for("waiting|publishing")
    return service


def _results(folder: Path) -> list[course.Submission]:
    """Return the submissions that are recorded as confirmed."""
    with Database(f"sqlite:///{folder / 'records.sqlite3'}") as database:
        return database.read_now(partial(course.submissions_of, wanted=course.Filter(status="confirmed")))


def _confirmed(folder: Path, number: int) -> list[course.Submission]:
    """Wait until `number` submissions are recorded as confirmed."""
    eventually_blocking(lambda: len(_results(folder)) >= number, f"{number} confirmed")
    found = _results(folder)
    assert len(found) == number
    return found


def _waiting(url: str, queue: str) -> int | None:
    """Return the number of messages in a queue; None if it does not exist."""

    async def count() -> int | None:
        async with rabbitry.connect(url) as connection, await connection.channel() as channel:
            try:
                return (await channel.declare_queue(queue, passive=True)).message_count
            except NotFound:
                return None

    return asyncio.run(count())


def _roles_take(url: str) -> bool:
    """Return whether each queue of the assignments has a consumer: earlier submissions may be lost."""
    queues = ("correction_queue_cc", "correction_queue_dm", "validation_queue", "confirmation_queue")
    with rabbitry.connect_blocking(url) as connection:
        for queue in queues:
            try:
                if not connection.channel().declare_queue(queue, passive=True).consumer_count:
                    return False
            except NotFound:
                return False
    return True


def _is_empty(url: str, queue: str) -> bool:
    return _waiting(url, queue) == 0


# -- utilization statistics and system information -------------------------------------------------------


@_ORDER
def test_statistics_and_system_information_go_both_ways(broker_url: str, tmp_path: Path, first: str) -> None:
    with contextlib.ExitStack() as stack:
        if first == "ours":
            page = stack.enter_context(_up(tmp_path, broker_url))
        client = _original(stack, "utilization_client", broker_url, hostname())
        consumer = _original(stack, "system_info_consumer", broker_url)
        _original(stack, "utilization_server", broker_url, "theirs")
        if first == "originals":
            page = stack.enter_context(_up(tmp_path, broker_url))
        # From our publisher to their consumer, which owns the queue `Consumer` in either order.
        client.wait_for(r"cpu: [\d.]+ \[Hi: [\d.]+, Lo: [\d.]+\]")
        consumer.wait_for(f"received {hostname()}")
        # From their publisher to our page, which must listen first: the message is published once.
        eventually_blocking(lambda: httpx.get(f"{page}healthz", timeout=60).status_code == 200, "the page's feed")
        with originals.run("system_info_publisher", broker_url) as publisher:
            assert publisher.process.wait(90) == 0, publisher.output
        consumer.wait_for("received the-originals")
        eventually_blocking(lambda: httpx.get(f"{page}healthz", timeout=60).json()["hosts"] == 2, "both machines")
        with _service(tmp_path, broker_url, "monitor", "stats", "-k", "theirs", "--json", "--plain", says="0.27"):
            pass
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(90) == 0, client.output
        assert client.output.endswith("closed\n")


# -- work queue ------------------------------------------------------------------------------------------


def test_original_consumers_are_served_round_robin(broker_url: str) -> None:
    with contextlib.ExitStack() as stack:
        consumers = [_original(stack, "work_consumer", broker_url) for _ in "abc"]
        with originals.run("work_producer", broker_url, "29") as producer:
            assert producer.process.wait(90) == 0, producer.output

        def received() -> list[list[int]]:
            return [
                [int(line[9:]) for line in each.output.splitlines() if line[:8] == "received"] for each in consumers
            ]

        eventually_blocking(lambda: sum(map(len, received())) == 30, "all of them")
        assert sorted(received()) == [list(range(first, 30, 3)) for first in range(3)]


@_ORDER
def test_an_original_consumer_that_never_acks_loses_nothing(broker_url: str, tmp_path: Path, first: str) -> None:
    last = 300
    consume = ("workqueue", "consume", "--json", "--plain")
    with contextlib.ExitStack() as stack:
        theirs = None
        if first == "originals":
            theirs = _original(stack, "work_consumer", broker_url)
        worker = stack.enter_context(_service(tmp_path, broker_url, *consume, says='"left":0'))
        theirs = theirs or _original(stack, "work_consumer", broker_url)
        with originals.run("work_producer", broker_url, str(last)) as producer:
            assert producer.process.wait(90) == 0, producer.output
        # It gets its share and keeps it unacknowledged; when it dies, our worker gets all of that.
        theirs.wait_for(r"received \d+\nreceived \d+")
        theirs.process.kill()
        worker.wait_for(rf'"done":{last + 1},.*"left":0')


def test_messages_of_either_producer_wait_for_the_others_consumer(broker_url: str, tmp_path: Path) -> None:
    with originals.run("work_producer", broker_url, "20") as producer:
        assert producer.process.wait(90) == 0, producer.output
    with _service(tmp_path, broker_url, "workqueue", "consume", "--json", says='"done":21,.*"left":0') as worker:
        assert worker.output.count("is used as it is") == 1  # without --plain the warning is printed once
    done = commands.run("workqueue", "produce", "--count", "3", "--plain", more={"RABBITRY_BROKER": broker_url})
    assert (done.returncode, done.stderr) == (0, "")
    with originals.run("work_consumer", broker_url) as consumer:
        consumer.wait_for(r"received 0\nreceived 1\nreceived 2\n")


def test_strict_refuses_queues_with_other_flags(broker_url: str) -> None:
    with originals.run("work_producer", broker_url, "1") as producer:
        assert producer.process.wait(90) == 0, producer.output
    for command in (("produce", "--count", "1"), ("consume", "--json")):
        done = commands.run("workqueue", *command, "--strict", more={"RABBITRY_BROKER": broker_url})
        assert done.returncode == 1
        assert "inequivalent arg 'durable' for queue 'worker_queue'" in done.stderr
        assert "Traceback" not in done.stderr


# -- assignment correction -------------------------------------------------------------------------------


@_ORDER
def test_students_and_readers_of_results_beside_our_roles(broker_url: str, tmp_path: Path, first: str) -> None:
    with contextlib.ExitStack() as stack:
        if first == "ours":
            stack.enter_context(_grading(tmp_path, broker_url, "run"))
        reader = _original(stack, "results_reader", broker_url)
        if first == "originals":
            with originals.run(
                "student", broker_url
            ) as student:  # what it sends to a queue that does not exist is lost
                assert student.process.wait(90) == 0, student.output
            stack.enter_context(_grading(tmp_path, broker_url, "run"))
        with originals.run("student", broker_url) as student:
            assert student.process.wait(90) == 0, student.output
        found = _confirmed(tmp_path, 2)
        assert {(one.student, one.module) for one in found} == {
            (str(fields["StudentID"]), fields["Module"]) for fields in originals.STUDENTS
        }
        for fields in originals.STUDENTS:
            reader.wait_for(rf"received .*{fields['Solution']}.*confirmed")
        assert _waiting(broker_url, dead_queue(APP)) == 0


@pytest.mark.parametrize(
    ("broker_url", "first", "theirs", "missing"),
    [
        ("embedded", "originals", ["demonstrator_cc", "demonstrator_dm"], ["assistant", "coordinator"]),
        ("rabbitmq", "ours", ["demonstrator_cc", "demonstrator_dm"], ["assistant", "coordinator"]),
        ("rabbitmq", "originals", ["teaching_assistant"], ["demonstrator", "coordinator"]),
        ("embedded", "ours", ["module_coordinator"], ["demonstrator", "assistant"]),
    ],
    indirect=["broker_url"],
)
def test_each_role_may_be_the_originals(
    broker_url: str, tmp_path: Path, first: str, theirs: list[str], missing: list[str]
) -> None:
    with contextlib.ExitStack() as stack:

        def start_ours() -> None:
            for role in missing:
                for module in ("cloud_computing", "data_mining") if role == "demonstrator" else (None,):
                    options = ("--module", module) if module else ()
                    stack.enter_context(_grading(tmp_path, broker_url, role, *options))

        if first == "ours":
            start_ours()
        services = [_original(stack, name, broker_url) for name in theirs]
        if first == "originals":
            start_ours()
        with originals.run("student", broker_url) as student:
            assert student.process.wait(90) == 0, student.output
        if theirs == ["module_coordinator"]:  # no queue is bound with the key of its results
            services[0].wait_for(r"(?s)(received .*validated.*){2}")
        else:
            _confirmed(tmp_path, 2)
        assert _waiting(broker_url, dead_queue(APP)) in (0, None)
    assert _waiting(broker_url, "results_queue") is None  # no queue keeps it


def test_an_endless_message_ends_at_our_demonstrator(broker_url: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        theirs = _original(stack, "first_exercise", broker_url)
        stack.enter_context(_grading(tmp_path, broker_url, "run"))

        async def submit() -> None:
            async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
                for _ in range(4):
                    body = json.dumps(originals.ANSWER).encode()
                    await channel.publish(body, exchange=originals.EXCHANGE, routing_key="correction")

        asyncio.run(submit())
        theirs.wait_for("received")
        # Ours takes submitted messages; a corrected one that comes back becomes a dead letter.
        eventually_blocking(lambda: _waiting(broker_url, "correction_queue") == 0, "an end")

        def all_settled() -> bool:
            letters = _waiting(broker_url, dead_queue(APP)) or 0
            return letters + len(_results(tmp_path)) == 4

        eventually_blocking(all_settled, "each to be a result or a dead letter")


@_ORDER
def test_the_broadcast_form_beside_our_roles(broker_url: str, tmp_path: Path, first: str) -> None:
    fanout = ("--exchange-type", "fanout")
    with contextlib.ExitStack() as stack:
        if first == "ours":
            stack.enter_context(_grading(tmp_path, broker_url, "run", *fanout))
        coordinator = _original(stack, "broadcast_coordinator", broker_url)
        if first == "originals":
            # Without an option: the roles find the type of the exchange by themselves.
            roles = stack.enter_context(_grading(tmp_path, broker_url, "run"))
            assert roles.output.count("exchange 'assignment_exchange' exists with other flags") == 1
        with originals.run("broadcast_student", broker_url) as student:
            assert student.process.wait(90) == 0, student.output
        (found,) = _confirmed(tmp_path, 1)
        assert found.student == str(originals.ANSWER["StudentID"])
        coordinator.wait_for(r"received .*validated")
        for queue in ("correction_queue", "correction_queue_cc", "validation_queue", "confirmation_queue"):
            eventually_blocking(partial(_is_empty, broker_url, queue), f"{queue} to be empty")
        assert _waiting(broker_url, dead_queue(APP)) == 0


def test_their_broadcast_assistant_among_our_roles(broker_url: str, tmp_path: Path) -> None:
    fanout = ("--exchange-type", "fanout")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_grading(tmp_path, broker_url, "demonstrator", *fanout))
        stack.enter_context(_grading(tmp_path, broker_url, "coordinator", *fanout))
        _original(stack, "broadcast_assistant", broker_url)
        with originals.run("broadcast_student", broker_url) as student:
            assert student.process.wait(90) == 0, student.output
        _confirmed(tmp_path, 1)


# -- all of it on the broker that up brings --------------------------------------------------------------


def test_all_original_programs_join_rabbitry_up(tmp_path: Path) -> None:
    """The page of `up` leaves `assignment_exchange` and `Consumer` to the original programs."""
    more = {"RABBITRY_DATABASE": f"sqlite:///{tmp_path / 'records.sqlite3'}"}
    arguments = ("up", *_FREE, "--apps", "monitor,grading", "--plain")
    with commands.service(*arguments, more=more) as up, contextlib.ExitStack() as stack:
        url = up.wait_for(r"broker on (amqp://\S+/)")[1].replace("amqp://", "amqp://guest:guest@")
        # Started before the roles, which start when the page is ready.
        consumer = _original(stack, "system_info_consumer", url)
        reader = _original(stack, "results_reader", url)
        worker = _original(stack, "work_consumer", url)
        eventually_blocking(partial(_roles_take, url), "the roles")
        # Started after them.
        client = _original(stack, "utilization_client", url, hostname())
        with originals.run("student", url) as student, originals.run("work_producer", url, "3") as producer:
            assert (student.process.wait(90), producer.process.wait(90)) == (0, 0)
        client.wait_for("cpu:")
        consumer.wait_for(f"received {hostname()}")
        worker.wait_for("received 3")
        reader.wait_for(r"(?s)(received .*confirmed.*){2}")
        assert "exists with other flags" not in up.output
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(90) == 0, up.output


def test_up_without_plain_before_does_no_harm(tmp_path: Path) -> None:
    more = {"XDG_DATA_HOME": str(tmp_path)}
    for options in ((), ("--plain",)):
        with commands.service("up", *_FREE, "--apps", "monitor,grading", *options, more=more) as up:
            url = up.wait_for(r"broker on (amqp://\S+/)")[1].replace("amqp://", "amqp://guest:guest@")
            eventually_blocking(partial(_roles_take, url), "the roles")
            if options:
                with originals.run("student", url) as student, originals.run("results_reader", url) as reader:
                    reader.wait_for("waiting")
                    assert student.process.wait(90) == 0, student.output
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(90) == 0, up.output
            assert "exists with other flags" not in up.output
