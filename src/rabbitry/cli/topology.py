"""`rabbitry topology show|check|export`: what an app needs on the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from rabbitry.apps.management import Management, get, management_url, open_client
from rabbitry.cli._apps import AppPath, load_app
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, print_json, say, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.flow import App
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
