"""`rabbitry topology show|export|check|plan|apply`: what an app needs on the broker, and how to change it."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from rabbitry.apps.management import Management, get, management_url, open_client
from rabbitry.cli._apps import AppPath, load_app
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json, say, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rabbitry.amqp.client import Connection
    from rabbitry.flow import App
    from rabbitry.flow.wiring.replacing import Replacement, Sight, Step
    from rabbitry.flow.wiring.topology import Finding

app: typer.Typer = typer.Typer()


@app.command("show")
def show(path: AppPath, *, as_json: Json = False) -> None:
    """Print the exchanges, queues and bindings of an app.

    Example: rabbitry topology show shop.flow:app
    """
    from rabbitry.flow.wiring.topology import derive

    for kind, items in derive(load_app(path).spec()).definitions().items():
        for item in items:
            if as_json:
                print_json({"kind": kind.removesuffix("s"), **item})
            elif kind == "bindings":
                print(f"binding   {item['source']} --{item['routing_key']}--> {item['destination']}")
            else:
                flags = [str(item.get("type", "")), "durable" if item["durable"] else "not durable"]
                arguments: object = item["arguments"]
                extra = arguments.items() if isinstance(arguments, dict) else ()
                flags += [f"{name}={value}" for name, value in extra]
                print(f"{kind.removesuffix('s'):9} {item['name']}  {' '.join(flag for flag in flags if flag)}")


@app.command("export")
def export(path: AppPath, vhost: Annotated[str, typer.Option(help="The virtual host.")] = "/") -> None:
    """Print an app's exchanges, queues and bindings as RabbitMQ definitions.

    Example: rabbitry topology export shop.flow:app > definitions.json
    """
    from rabbitry.flow.wiring.topology import derive

    print_json(dict(derive(load_app(path).spec()).definitions(vhost)))


@app.command("check")
def check(
    context: typer.Context,
    path: AppPath,
    broker: Broker = None,
    management: Management = None,
    *,
    as_json: Json = False,
) -> None:
    """List what is missing on a broker or declared with other flags than the app's, without changing anything.

    Exit code 1 if there is a difference. Example: rabbitry topology check shop.flow:app
    """
    url = broker_url(context, broker)
    flow = load_app(path)

    async def work() -> int:
        findings = await _check(flow, url, management)
        for finding in findings:
            if as_json:
                print_json({"what": finding.what, "text": finding.text})
            else:
                print(finding)
        if not findings and not as_json:
            say("nothing is missing, and nothing is declared with other flags")
        if management is None:
            warn("bindings were not checked: only the management API knows them (--management URL)")
        return ExitCode.FAILED if findings else ExitCode.DONE

    raise typer.Exit(run_once(work()))


async def _check(flow: App, url: str, management: str | None) -> list[Finding]:
    from rabbitry.amqp.client import connect
    from rabbitry.flow.wiring import topology

    async with connect(url, name="rabbitry topology check", recover=False) as connection:
        findings = await topology.check(connection, flow.spec())
        login = connection.url
    if management is not None:
        async with open_client(management_url(management, login), login) as client:
            bindings = await get(client, f"/api/bindings/{quote(login.virtual_host, safe='')}")
        findings += topology.missing_bindings(topology.derive(flow.spec()), bindings)
    return findings


@app.command("plan")
def plan(
    context: typer.Context,
    path: AppPath,
    broker: Broker = None,
    management: Management = None,
    *,
    as_json: Json = False,
) -> None:
    """Print how queues and exchanges that exist with other flags would be replaced, without changing anything.

    Each step is printed, with the number of messages that it moves. Needs the broker's management API, for bindings and
    messages in hand.

    Example: rabbitry topology plan shop.flow:app
    """
    flow, url = load_app(path), broker_url(context, broker)

    async def work() -> int:
        from rabbitry.flow.wiring import replacing

        async with _seeing(url, management, "plan") as (connection, sight):
            _print_plan(await replacing.plan(connection, flow.spec(), sight), as_json=as_json)
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@app.command("apply")
def apply(
    context: typer.Context,
    path: AppPath,
    broker: Broker = None,
    management: Management = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002 # typer's way of a flag
    wait: Annotated[float, typer.Option(help="Seconds that the consumers of a queue have to stop.", min=0)] = 120,
    *,
    as_json: Json = False,
) -> None:
    """Replace queues and exchanges that exist with other flags, as `rabbitry topology plan` shows.

    No message is lost. If it is interrupted, at any step, run it again. Exit code 1 if something can't be replaced.

    Example: rabbitry topology apply shop.flow:app
    """
    flow, url = load_app(path), broker_url(context, broker)

    async def show() -> int:
        from rabbitry.flow.wiring import replacing

        async with _seeing(url, management, "apply") as (connection, sight):
            plans = await replacing.plan(connection, flow.spec(), sight)
        _print_plan(plans, as_json=as_json)
        return len(plans)

    if not yes and (not run_once(show()) or not _agreed()):
        raise typer.Exit(ExitCode.DONE)
    raise typer.Exit(run_once(_apply(flow, url, management, wait, as_json=as_json)))


async def _apply(flow: App, url: str, management: str | None, wait: float, *, as_json: bool) -> int:
    from rabbitry.flow.wiring import replacer, replacing

    def report(item: Replacement, step: Step, moved: int) -> None:
        if as_json:
            print_json({"what": item.what, **_described(step), "moved": moved})
        elif moved:
            print(f"  {moved} moved", flush=True)
        else:
            print(f"{item.what}: {step.text}", flush=True)

    problems = 0
    async with (
        _seeing(url, management, "apply") as (connection, sight),
        replacer.alone(connection, flow.name),
    ):
        for item in await replacing.plan(connection, flow.spec(), sight):
            if item.problem:
                warn(f"{item.what} can't be replaced: {item.problem}")
                problems += 1
                continue
            await replacer.apply(connection, flow.name, sight, item, partial(report, item), wait)
    if not problems and not as_json:
        say("done: nothing is declared with other flags")
    return ExitCode.FAILED if problems else ExitCode.DONE


def _agreed() -> bool:
    """Ask. Raises UsageError if nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError("stdin is no terminal, so nobody can agree to the plan: pass --yes")
    return typer.confirm("Carry it out?", err=True)


def _print_plan(plans: Sequence[Replacement], *, as_json: bool) -> None:
    for item in plans:
        if as_json:
            print_json({"what": item.what, "why": item.why, "problem": item.problem,
                        "steps": [_described(step) for step in item.steps]})  # fmt: skip
            continue
        print(one_line(f"{item.what}: {item.why}"))
        if item.problem:
            print(one_line(f"  can't be replaced: {item.problem}"))
        for number, step in enumerate(item.steps, 1):
            count = "" if step.messages is None else f": {step.messages} now"
            print(one_line(f"{number:2}. {step.text}{count}"))
    if not plans and not as_json:
        say("nothing is declared with other flags")


def _described(step: Step) -> dict[str, object]:
    return {"step": step.action, "text": step.text, "messages": step.messages}


@contextlib.asynccontextmanager
async def _seeing(url: str, management: str | None, name: str) -> AsyncIterator[tuple[Connection, Sight]]:
    from rabbitry.amqp.client import connect
    from rabbitry.cli._sight import ManagementSight

    async with connect(url, name=f"rabbitry topology {name}", recover=False) as connection:
        login = connection.url
        async with open_client(management_url(management, login), login) as client:
            yield connection, ManagementSight(client, login.virtual_host)
