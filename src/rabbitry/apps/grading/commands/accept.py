"""`rabbitry grading accept`: takes a submission that was declined or came too late all the same, or withdraws that."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.accepting import ACCEPTED, WITHDRAWN
from rabbitry.apps.grading.commands.access import course_records
from rabbitry.apps.grading.commands.options import EXCHANGE, Config, ExchangeName, KeptFiles, check_exchange
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json

Reason = Annotated[
    str | None,
    typer.Option(
        "--remark",
        metavar="TEXT",
        help=f'The reason, for the history. Default: "{ACCEPTED}" or "{WITHDRAWN}".',
        show_default=False,
    ),
]
app: typer.Typer = typer.Typer()


@app.command("accept")
def accept(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The submission's id, or a unique prefix of it.")],
    remark: Reason = None,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    is_withdrawn: Annotated[
        bool, typer.Option("--withdraw", help="Withdraw the acceptance of a submission that the deadlines forbid.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Accept a submission that was declined as one too many, or that the deadlines forbid: it may count all the same.

    A running coordinator publishes a declined one. With --withdraw, one that was accepted against the deadlines counts
    no more. If the records are not on this machine, a coordinator is asked over the broker.

    Example: rabbitry grading accept 3f2a --remark "the network was down"
    """
    from rabbitry.apps.grading.changing import Change
    from rabbitry.apps.grading.message import sendable, user_name
    from rabbitry.apps.grading.modules import load_course

    check_exchange(exchange)
    why = remark if remark is not None else WITHDRAWN if is_withdrawn else ACCEPTED
    what: Literal["accept", "withdraw"] = "withdraw" if is_withdrawn else "accept"
    wanted = Change(what, user_name(), sendable(why), submission=sendable(id))
    with course_records(context, database, broker, load_course(config)) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} is recorded")
        found = records.change(wanted, files, exchange)
    if as_json:
        print_json(found)
    else:
        done = "not accepted any more" if is_withdrawn else "accepted"
        print(one_line(f"{found['id']}  student {found['student']}  {done}"))
