"""Global parameters: the cluster's name, and values that operators store for their own tools."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Final

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.schema import record_key

PARAMETER: Final = "global-parameter"
CLUSTER_NAME: Final = "cluster_name"


class Parameters:
    """The global parameters of a broker, by name; the broker itself uses only cluster_name.

    Args:
        journal: Stores them.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._values: dict[str, object] = {}

    @property
    def values(self) -> Mapping[str, object]:
        """Name → JSON value."""
        return self._values

    @property
    def cluster_name(self) -> str:
        """The name of this broker for clients and operators."""
        name = self._values.get(CLUSTER_NAME)
        return name if isinstance(name, str) else f"rabbitry@{platform.node()}"

    def put(self, name: str, value: object) -> None:
        """Set a parameter to a JSON value; None clears it."""
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value
        if self._journal.is_on:
            record: Table | None = None if value is None else {"name": name, "value": json.dumps(value)}
            self._journal.put(PARAMETER, record_key(name), record)

    def restore(self, record: Table) -> None:
        """Restore a parameter from the store.

        Raises:
            ValueError: The value is not JSON.
        """
        self._values[str(record["name"])] = json.loads(str(record["value"]))
