"""Apps of the tests, whose handlers die, hang, take batches and yield in processes."""

import os
import pathlib
import time
from collections.abc import Iterator

import msgspec

import rabbitry


class Item(msgspec.Struct):
    """A message of the tests."""

    n: int


dangerous = rabbitry.App("dangerous")


@dangerous.stage("work", processes=True, concurrency=1, attempts=1, time_limit=3.0, then="end")
def work(what: str) -> str:
    if what == "die":
        os._exit(7)
    if what == "hang":
        time.sleep(3600)
    return what


dangerous.output("end", queue="dangerous.end")

batches = rabbitry.App("batches")


@batches.stage("process", then="out", processes=True, batch=20, concurrency=1, attempts=1)
def handle_batch(items: list[Item], batch: rabbitry.Batch, messages: list[rabbitry.Message]) -> list[int]:
    assert len(items) == len(messages)
    good = []
    for index, item in enumerate(items):
        if item.n == 11:
            os._exit(7)
        if item.n == 7:
            batch.fail(index, rabbitry.Reject("seven"))
        else:
            good.append(item.n)
    return good


batches.output("out", queue="batches.out")

yielding = rabbitry.App("yielding")


@yielding.stage("in", then="out", processes=True, concurrency=1, attempts=1, time_limit=5)
def handle(text: str) -> Iterator[object]:
    what, *more = text.split()
    if what == "count":
        yield from range(int(more[0]))
        return
    yield what
    if what == "fail":
        raise ValueError("after one")
    if what == "die":
        os._exit(7)
    try:
        while True:
            time.sleep(0.001)
            yield what
    finally:
        pathlib.Path(more[0]).write_text("closed")


yielding.output("out", queue="yielding.out")

addressed = rabbitry.App("addressed")


def _messages(text: str) -> list[rabbitry.Outgoing]:
    page = rabbitry.Outgoing(
        b"\x00page",
        key="page",
        headers={"x-rabbitry-url": "http://a/", "nested": {"n": 1}},
        content_type="text/html",
        content_encoding="zstd",
        type="P" * 200,
        expiration=60,
        priority=7,
    )
    return [page, rabbitry.Outgoing(text)]


@addressed.stage("returned", then="line")
async def return_messages(text: str) -> list[rabbitry.Outgoing]:
    return _messages(text)


@addressed.stage("yielded", then="line")
def yield_messages(text: str) -> Iterator[rabbitry.Outgoing]:
    yield from _messages(text)


@addressed.stage("process", then="line", processes=True, concurrency=1)
def return_messages_of_a_process(text: str) -> list[rabbitry.Outgoing]:
    return _messages(text)


addressed.output("page", queue="addressed.pages")
addressed.output("line", queue="addressed.lines")

cancelled = rabbitry.App("cancelled-process", cancellable=True)


@cancelled.stage("work", processes=True, concurrency=1, attempts=2, then="end")
def sleep_or_return(what: str) -> str:
    if what.startswith("/"):  # a file: it tells that this began, which only a signal ends
        with open(what, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    return what


cancelled.output("end", queue="cancelled-process.end")


joining = rabbitry.App("joining")
"""Joins in processes. The first part is the path of a file: the run that makes it dies."""


@joining.stage("job", then="part")
async def split(text: str) -> list[str]:
    return text.split()


@joining.join("part", of="split", processes=True, concurrency=2, delays=[0], replies=True)
def joined(parts: list[str]) -> str:
    path = pathlib.Path(parts[0])
    if not path.exists():
        path.touch()
        os._exit(3)
    return " ".join([*parts[1:], str(os.getpid())])


@joining.join("part", of="split", processes=True, concurrency=1, then="each", delays=[0])
def each(parts: list[str]) -> Iterator[str]:
    yield from parts[1:]


joining.output("each", queue="joining.each.out")
