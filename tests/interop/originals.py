"""The original programs, rewritten with the same calls of pika, their defaults and their faults.

`python -m tests.interop.originals PROGRAM URL [ARGUMENT…]`. The originals have the broker's address in their text or
in `.env`; here it is the first argument. Each prints that it is waiting, and what it received, as the originals do.
"""

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pika

from tests.support.commands import Service, environment
from tests.support.launcher import launch

SAMPLE = {"cpu": 0.27, "net": {"eth0": {"rx": 1200, "tx": 800}, "lo": {"rx": 0, "tx": 0}}}
SYSTEM_INFO = {
    "timestamp": "2026-01-01T00:00:00",
    "hostname": "the-originals",
    "platform": "Linux",
    "cpu_percent": 12.5,
    "memory": {"total": 1000, "available": 600, "used": 400, "percent": 40.0},
    "disk": {"total": 2000, "used": 500, "free": 1500, "percent": 25.0},
}
STUDENTS = [
    {"StudentID": 23200858, "Solution": "Task 3 - Cloud Computing", "Module": "cloud_computing", "status": "submitted"},
    {"StudentID": 12345678, "Solution": "Task 3 - Data Mining", "Module": "data_mining", "status": "submitted"},
]
ANSWER = {"StudentID": 23200858, "Answer": "Solution", "status": "submitted"}
EXCHANGE = "assignment_exchange"
_PAUSE = 0.2
"""Seconds between two samples of the utilization server."""

Program = Callable[..., None]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    """Register a function as a program under its name."""
    PROGRAMS[function.__name__] = function
    return function


@contextlib.contextmanager
def run(name: str, url: str, *arguments: str) -> Iterator[Service]:
    """Run a program in a process of its own until the block is left."""
    with tempfile.TemporaryDirectory(prefix="rabbitry-original-") as folder:
        path = Path(folder) / "output"
        with path.open("wb") as file:
            output = file.fileno()
            process = launch([name, url, *arguments], environment(), output, output, module="tests.interop.originals")
        try:
            yield Service(process, str(path))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _channel(url: str) -> Any:
    return pika.BlockingConnection(pika.URLParameters(url)).channel()


# -- utilization statistics ------------------------------------------------------------------------------


@program
def utilization_server(url: str, key: str) -> None:
    """Publish a sample every few seconds, without confirms."""
    channel = _channel(url)
    channel.exchange_declare(exchange="pi_utilization", exchange_type="direct")
    print("publishing", flush=True)
    while True:
        channel.basic_publish(exchange="pi_utilization", routing_key=key, body=json.dumps(SAMPLE))
        channel.connection.sleep(_PAUSE)


@program
def utilization_client(url: str, key: str) -> None:
    """Print current, lowest and highest values; on Ctrl-C empty the queue, close the channel, then the connection."""
    channel = _channel(url)
    channel.exchange_declare(exchange="pi_utilization", exchange_type="direct")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange="pi_utilization", queue=queue, routing_key=key)
    seen: list[float] = []

    def callback(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        seen.append(json.loads(body)["cpu"])
        print(f"{method.routing_key} cpu: {seen[-1]} [Hi: {max(seen)}, Lo: {min(seen)}]", flush=True)

    def interrupted(number: int, frame: FrameType | None) -> None:
        # Not in the signal handler: pika may be in the middle of a frame.
        channel.connection.add_callback_threadsafe(channel.stop_consuming)

    signal.signal(signal.SIGINT, interrupted)
    channel.basic_consume(queue=queue, on_message_callback=callback, auto_ack=True)
    print("waiting", flush=True)
    channel.start_consuming()
    channel.queue_purge(queue)
    channel.close()
    channel.connection.close()
    print("closed", flush=True)


# -- system information ----------------------------------------------------------------------------------


@program
def system_info_publisher(url: str) -> None:
    """Publish one persistent message, as a request to /publish does."""
    channel = _channel(url)
    channel.exchange_declare(exchange="system_info", exchange_type="fanout", durable=True)
    properties = pika.BasicProperties(delivery_mode=2)
    channel.basic_publish(exchange="system_info", routing_key="", body=json.dumps(SYSTEM_INFO), properties=properties)
    channel.connection.close()


@program
def system_info_consumer(url: str) -> None:
    """Consume from the queue `Consumer`, declared exclusive."""
    channel = _channel(url)
    channel.exchange_declare(exchange="system_info", exchange_type="fanout", durable=True)
    channel.queue_declare(queue="Consumer", exclusive=True)
    channel.queue_bind(exchange="system_info", queue="Consumer")

    def callback(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        print(f"received {json.loads(body)['hostname']}", flush=True)

    channel.basic_consume(queue="Consumer", on_message_callback=callback, auto_ack=True)
    print("waiting", flush=True)
    channel.start_consuming()


# -- work queue ------------------------------------------------------------------------------------------


@program
def work_producer(url: str, last: str) -> None:
    """Publish 0, 1, 2, … and close."""
    channel = _channel(url)
    channel.queue_declare(queue="worker_queue")
    i = 0
    while True:
        channel.basic_publish(exchange="", routing_key="worker_queue", body=str(i))
        i += 1
        if i > int(last):
            break
    channel.connection.close()
    print(f"sent {i}", flush=True)


@program
def work_consumer(url: str) -> None:
    """Consume with manual acknowledgement, and never acknowledge."""
    channel = _channel(url)
    channel.queue_declare(queue="worker_queue")

    def callback(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        print(f"received {body.decode()}", flush=True)

    channel.basic_consume(queue="worker_queue", on_message_callback=callback, auto_ack=False)
    print("waiting", flush=True)
    channel.start_consuming()


# -- assignment correction -------------------------------------------------------------------------------


def _role(
    url: str,
    queue: str,
    key: str | None,
    status: str,
    then: str | None,
    *,
    kind: str = "direct",
    takes: str | None = None,
) -> None:
    """Consume a role's queue, set the status of each message and publish it. takes: any other status is ignored."""
    channel = _channel(url)
    channel.exchange_declare(exchange=EXCHANGE, exchange_type=kind)
    name = channel.queue_declare(queue=queue).method.queue
    channel.queue_bind(exchange=EXCHANGE, queue=name, routing_key=key)

    def callback(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        message = json.loads(body)
        print(f"received {json.dumps(message)}", flush=True)
        if takes is not None and message["status"] != takes:
            print("ignored", flush=True)
            return
        message["status"] = status
        if then is not None:
            ch.basic_publish(exchange=EXCHANGE, routing_key=then, body=json.dumps(message))

    channel.basic_consume(queue=name, on_message_callback=callback, auto_ack=True)
    print("waiting", flush=True)
    channel.start_consuming()


@program
def student(url: str) -> None:
    """Submit a solution for each module; one of an unknown module would go to cloud computing."""
    channel = _channel(url)
    channel.exchange_declare(exchange=EXCHANGE, exchange_type="direct")
    for fields in STUDENTS:
        key = "demonstrator_dm" if fields["Module"] == "data_mining" else "demonstrator_cc"
        channel.basic_publish(exchange=EXCHANGE, routing_key=key, body=json.dumps(fields))
    channel.connection.close()


@program
def demonstrator_cc(url: str) -> None:
    """Run the demonstrator of cloud computing."""
    _role(url, "correction_queue_cc", "demonstrator_cc", "corrected", "validation")


@program
def demonstrator_dm(url: str) -> None:
    """Run the demonstrator of data mining."""
    _role(url, "correction_queue_dm", "demonstrator_dm", "corrected", "validation")


@program
def teaching_assistant(url: str) -> None:
    """Run the teaching assistant, which takes any status."""
    _role(url, "validation_queue", "validation", "validated", "confirmation")


@program
def module_coordinator(url: str) -> None:
    """Run the coordinator, which wrongly sets `corrected`, and publishes with a key without a binding."""
    _role(url, "confirmation_queue", "confirmation", "corrected", "test")


@program
def first_exercise(url: str) -> None:
    """Run all roles of the first form: the demonstrator's result returns to its own queue, for ever."""
    channel = _channel(url)
    channel.exchange_declare(exchange=EXCHANGE, exchange_type="direct")
    for queue, key in (("correction", "correction"), ("validation", "validation"), ("results", "results")):
        channel.queue_declare(queue=f"{queue}_queue")
        channel.queue_bind(exchange=EXCHANGE, queue=f"{queue}_queue", routing_key=key)

    def corrected(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        message = json.loads(body)
        print(f"received {json.dumps(message)}", flush=True)
        message["status"] = "corrected"
        ch.basic_publish(exchange=EXCHANGE, routing_key="correction", body=json.dumps(message))

    def confirmed(ch: Any, method: Any, properties: Any, body: bytes) -> None:
        print(f"result {json.dumps(json.loads(body))}", flush=True)

    channel.basic_consume(queue="correction_queue", on_message_callback=corrected, auto_ack=True)
    channel.basic_consume(queue="results_queue", on_message_callback=confirmed, auto_ack=True)
    print("waiting", flush=True)
    channel.start_consuming()


@program
def results_reader(url: str) -> None:
    """Read results from a queue of its own, bound with the key `results`."""
    _role(url, "results_queue", "results", "confirmed", None)


@program
def broadcast_student(url: str) -> None:
    """Submit by broadcast."""
    channel = _channel(url)
    channel.exchange_declare(exchange=EXCHANGE, exchange_type="fanout")
    channel.basic_publish(exchange=EXCHANGE, routing_key="correction", body=json.dumps(ANSWER))
    channel.connection.close()


@program
def broadcast_assistant(url: str) -> None:
    """Validate corrected submissions, and broadcast them."""
    _role(url, "validation_queue", None, "validated", "validation", kind="fanout", takes="corrected")


@program
def broadcast_coordinator(url: str) -> None:
    """Confirm validated submissions, and publish nothing."""
    _role(url, "results_queue", None, "confirmed", None, kind="fanout", takes="validated")


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
