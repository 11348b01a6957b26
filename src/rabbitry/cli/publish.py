"""`rabbitry publish`: JSON lines from stdin to an app."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry._words import counted
from rabbitry.cli._apps import AppPath, load_app
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.options import Broker, Json, Plain, Strict, broker_url
from rabbitry.runtime.output import ExitCode, fail, print_json
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.flow import App
    from rabbitry.flow.codec import Codec
    from rabbitry.flow.timing import Times

app: typer.Typer = typer.Typer()
_EACH = 1000


@app.command("publish")
def publish(
    context: typer.Context,
    path: AppPath,
    key: str = typer.Argument(metavar="KEY", help="The routing key of the first stage."),
    *,
    after: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Deliver them so much later, at most four years."),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], metavar="TIME", help="Deliver them at 2028-02-29T08:00:00+0100."),
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Drop those that no worker has taken so long after that."),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Make these dead letters, instead of dropping them.")] = False,
    plain: Plain = False,
    strict: Strict = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Publish each line of stdin as a message, and exit when the broker has confirmed all of them.

    Lines are JSON, or text if the stage takes text. At a line that the stage could not decode, publishing stops with
    exit code 1; the lines before it are published. Example: rabbitry publish shop.flow:app order < orders.jsonl
    """
    times = _times(after, at, expires, dead=dead)
    url = broker_url(context, broker)
    flow = load_app(path, plain=plain)
    raise typer.Exit(run_once(_publish(flow, key, url, times, strict=strict, as_json=as_json)))


def _times(after: float | None, at: datetime | None, expires: float | None, *, dead: bool) -> Times:
    """Check the options of times, and return the arguments that they stand for. Raises UsageError."""
    from rabbitry.flow.timing import LONGEST_EXPIRY
    from rabbitry.flow.wiring.delays import LONGEST

    if after is not None and not 0 <= after <= LONGEST:
        raise UsageError(f"--after {after:g}: give seconds from 0 to {LONGEST}, which is four years")
    if expires is not None and not 0 < expires <= LONGEST_EXPIRY:
        raise UsageError(f"--expires {expires:g}: give positive seconds, at most those of 100 years")
    if after is not None and at is not None:
        raise UsageError("--after and --at both say when the messages are delivered: give one of them")
    if dead and expires is None:
        raise UsageError("--dead says what becomes of messages that expire: give --expires SECONDS too")
    return {"after": after, "at": at, "expires": expires, "expired": "dead" if dead else "drop"}


async def _publish(flow: App, key: str, url: str, times: Times, *, strict: bool, as_json: bool) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from rabbitry.flow.codec import BYTES, JSON, TEXT, Codec
    from rabbitry.flow.message import first_properties

    stage = next((stage for stage in flow.stages.values() if stage.key == key), None)
    codec: Codec = stage.value_codec if stage is not None else Codec(object if key in flow.outputs else dict)
    content_type = BYTES if codec.type is bytes else TEXT if codec.is_text else JSON
    type_name = codec.type.__name__ if isinstance(codec.type, type) else str(codec.type)
    sent, pending = 0, deque[asyncio.Future[None]]()
    columns = (SpinnerColumn(), TextColumn("published"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("published", total=None)
        async with flow.publisher(url, strict=strict) as publisher:
            bad = ""
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
                body = line.rstrip(b"\r\n")
                if not body:
                    continue
                try:
                    codec.decode(body)
                except Undecodable as error:
                    bad = f"line {sent + 1}: {error}"
                    break
                properties = first_properties(flow.name, content_type, type_name)
                pending.append(await publisher.send_body(body, properties, key=key, **times))
                sent += 1
                if sent % _EACH == 0:
                    while len(pending) > _EACH:
                        await pending.popleft()
                    progress.update(bar, completed=sent)
            for future in pending:
                await future
    if as_json:
        print_json({"published": sent, "key": key})
    else:
        print(f"published {counted(sent, 'message')} with key {key}")
    if bad:
        fail(f"{bad}; {counted(sent, 'line')} before it published")
    return ExitCode.DONE
