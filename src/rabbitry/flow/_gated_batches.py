"""Batches behind gates: the handler gets the messages that are to be handled, and the others are settled alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rabbitry.flow._gate import Gate
from rabbitry.flow._signature import Signature
from rabbitry.flow.batch import Batch, failures_of, on_failure, skip
from rabbitry.flow.exceptions import StoreError
from rabbitry.flow.outgoing import Outgoing


class GatedBatch:
    """A call with the messages of a batch whose gates are open: a `GatedCall`. The others are done or fail alone."""

    is_skipped = False
    """Each message that was done before is noted in the batch."""

    def __init__(self, gates: Sequence[Gate], batch: Batch, arguments: dict[str, Any], signature: Signature) -> None:
        """Make a call.

        Args:
            gates: The gates of all messages, in their order.
            batch: Settles single messages.
            arguments: The handler's, as if it got all messages.
            signature: The handler's.
        """
        self._gates = gates
        self._batch = batch
        self._arguments = arguments
        self._signature = signature
        self._inner = Batch(0)
        """The batch of the messages that the handler gets."""
        self._places: list[int] = []
        """Their places among all messages."""
        on_failure(batch, self.release)

    def take(self) -> dict[str, Any] | None:
        """See `GatedCall`. No error of a gate is raised: its message fails alone."""
        try:
            values = self._take()
        except BaseException:  # also an exit
            self.release()
            raise
        self._inner = Batch(len(values))
        if not values:
            return None
        signature = self._signature
        own: dict[str, Any] = {signature.value: values}
        if signature.message is not None:
            own[signature.message] = [self._arguments[signature.message][place] for place in self._places]
        if signature.batch is not None:
            own[signature.batch] = self._inner
        return self._arguments | own

    def _take(self) -> list[object]:
        values: list[object] = []
        away: Exception | None = None
        for place, gate in enumerate(self._gates):
            if away is not None:
                self._batch.fail(place, away)  # else each message would wait for the store anew
                continue
            try:
                taken = gate.take()
            except Exception as error:  # noqa: BLE001 - that of one message, as if it were handled alone
                self._batch.fail(place, error)
                away = error if isinstance(error.__cause__, StoreError) else None
                continue
            if taken is not None:
                self._places.append(place)
                values.append(taken.value)
            elif gate.is_skipped:
                skip(self._batch, place)
        return values

    def release(self) -> None:
        """See `GatedCall`."""
        for place in self._places:
            self._gates[place].release()

    def placed(self, value: object) -> object:
        """See `GatedCall`."""
        if not isinstance(value, Outgoing) or value.index is None:
            return value
        if not 0 <= value.index < len(self._places):
            raise IndexError(f"index={value.index} is none of the batch's messages: there are {len(self._places)}")
        return replace(value, index=self._places[value.index])

    def notes(self) -> list[Outgoing]:
        """See `GatedCall`. The messages that the handler let fail are released."""
        failures, notes = failures_of(self._inner), []
        for index, place in enumerate(self._places):
            if index in failures:
                self._gates[place].release()
                self._batch.fail(place, failures[index])
            elif (note := self._gates[place].note()) is not None:
                notes.append(replace(note, index=place))
        return notes
