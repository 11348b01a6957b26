"""Importing definitions into a broker of this process, as the management API does for its clients.

Needs the packages of the management API.
"""

from __future__ import annotations

from rabbitry.broker._errors import Refusal
from rabbitry.broker._management.call import Answer
from rabbitry.broker._management.definitions import BadDefinition
from rabbitry.broker._management.importing import load
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.reading import Document
from rabbitry.broker.broker import Broker
from rabbitry.exceptions import Undecodable, UsageError


async def import_definitions(broker: Broker, content: bytes, where: str) -> None:
    """Declare the contents of a definitions document, for a program that embeds the broker.

    Args:
        broker: A running broker.
        content: The document, as JSON.
        where: The document's name in errors.

    Raises:
        UsageError: It is not JSON, or something in it is invalid; nothing is declared then.
    """
    document, pace = Document(content), Pace()
    try:
        async with pace:
            await document.read(pace)
        await load(broker, document, pace)
    except (Answer, BadDefinition, Refusal, Undecodable, UsageError) as error:
        raise UsageError(f"can't import {where}: {str(error).strip()}") from error
