"""`rabbitry grading accept`: takes a submission that was declined or came too late all the same."""

from __future__ import annotations

from typing import Annotated

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.accepting import ACCEPTED
from rabbitry.apps.grading.commands.access import course_records
from rabbitry.apps.grading.commands.options import EXCHANGE, Config, ExchangeName, KeptFiles, Remark, check_exchange
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json

app: typer.Typer = typer.Typer()


@app.command("accept")
def accept(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The submission's id, or a unique prefix of it.")],
    remark: Remark = ACCEPTED,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Accept a submission that was declined as one too many, or that the deadlines forbid: it may count all the same.

    A running coordinator publishes a declined one. If the records are not on this machine, it is asked over the broker.

    Example: rabbitry grading accept 3f2a --remark "the network was down"
    """
    from rabbitry.apps.grading.changing import Change
    from rabbitry.apps.grading.message import sendable, user_name
    from rabbitry.apps.grading.modules import load_course

    check_exchange(exchange)
    wanted = Change("accept", user_name(), sendable(remark), submission=sendable(id))
    with course_records(context, database, broker, load_course(config)) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} is recorded")
        found = records.change(wanted, files, exchange)
    if as_json:
        print_json(found)
    else:
        print(one_line(f"{found['id']}  student {found['student']}  accepted"))
