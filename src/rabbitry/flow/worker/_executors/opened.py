"""A batch decoded for its handler: the handler's arguments, and the results of single messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rabbitry.exceptions import Undecodable
from rabbitry.flow.batch import Batch, failures_of, skipped_of, undo_of
from rabbitry.flow.worker._job import SKIPPED, Result

if TYPE_CHECKING:
    from rabbitry.flow.message import Message
    from rabbitry.flow.stage import Stage


class OpenedBatch:
    """The decodable messages of a batch, for the handler, and the results of the others.

    places: by the index in the handler's list, the place in the batch.
    """

    def __init__(
        self,
        stage: Stage,
        bodies: list[bytes],
        messages: Callable[[], Message | list[Message]],
        failed: Callable[[BaseException], Result],
    ) -> None:
        """messages: reads the metadata of all. failed: makes a result of an error."""
        self._failed = failed
        self._failures: list[tuple[int, Result]] = []
        self.places: list[int] = []
        values: list[object] = []
        needs_all = stage.signature.message is not None or stage.codec.needs_content_type
        found = messages() if needs_all else []
        assert isinstance(found, list)  # noqa: S101 # a batch's; narrows the type
        types = [message.content_type for message in found] or [None] * len(bodies)
        for place, (body, content_type) in enumerate(zip(bodies, types, strict=True)):
            try:
                values.append(stage.codec.decode(body, content_type))
            except Undecodable as error:
                self._failures.append((place, failed(error)))
            else:
                self.places.append(place)
        self._batch = Batch(len(values))
        signature = stage.signature
        self.arguments: dict[str, object] = {signature.value: values}
        if signature.message is not None:
            self.arguments[signature.message] = [found[place] for place in self.places]
        if signature.batch is not None:
            self.arguments[signature.batch] = self._batch

    @property
    def undo(self) -> Callable[[], None] | None:
        """What is to be called if the batch fails; it may wait for a store."""
        return undo_of(self._batch)

    def settled(self, result: Result) -> Result:
        """Return the result of a handler, with the results of single messages added when it is done."""
        if result.kind != "done":
            return result
        single = ((self.places[index], self._failed(error)) for index, error in failures_of(self._batch).items())
        skipped = ((self.places[index], SKIPPED) for index in sorted(skipped_of(self._batch)))
        failures = (*self._failures, *single, *skipped)
        return result._replace(failures=failures) if failures else result
