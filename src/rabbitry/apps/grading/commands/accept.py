"""`rabbitry grading accept`: has a declined submission marked all the same."""

from __future__ import annotations

from typing import Annotated

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.accepting import ACCEPTED
from rabbitry.apps.grading.commands.options import EXCHANGE, Config, ExchangeName, KeptFiles, Remark, check_exchange
from rabbitry.apps.grading.commands.records import database_url, existing
from rabbitry.runtime.options import DatabaseURL, Json
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
    *,
    as_json: Json = False,
) -> None:
    """Accept a submission that was declined as one too many: it is marked, and may count, as if it had been taken.

    It needs the records and the files; a running coordinator publishes it. Example:
    rabbitry grading accept 3f2a --remark "the network was down"
    """
    from rabbitry.apps.grading import accepting
    from rabbitry.apps.grading.exporting import opened_files
    from rabbitry.apps.grading.message import Decision, user_name
    from rabbitry.apps.grading.modules import load_course

    check_exchange(exchange)
    course = load_course(config)
    with existing(context, database) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} is recorded")
        kept = opened_files(records, database_url(context, database), files)
        found = accepting.accept(records, kept, id, Decision(user_name(), remark=remark), course, exchange)
    if as_json:
        print_json({"id": found.id, "student": found.student, "module": found.module})
    else:
        print(one_line(f"{found.id}  student {found.student}  accepted"))
