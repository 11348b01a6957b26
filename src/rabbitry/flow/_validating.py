"""Checks of an app as a whole, when its stages, joins, outputs and middlewares are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rabbitry.flow.exceptions import AppError
from rabbitry.flow.key import Key, name_of

if TYPE_CHECKING:
    from rabbitry.flow._parts import Join
    from rabbitry.flow.spec import AppSpec, QueueType
    from rabbitry.flow.stage import Stage


def check_app(spec: AppSpec) -> None:
    """Raise AppError for an app that can't run; see `App.validate`."""
    for middleware in spec.middlewares:
        if absent := sorted((middleware.stages or frozenset()) - set(spec.stages)):
            raise AppError(
                f"app {spec.name!r}, middleware {middleware.name!r} ({middleware.place}): "
                f"there is no stage {absent[0]!r}"
            )
    for name, join in spec.joins.items():
        _check_join(spec, spec.stages[name], join)
    for stage in spec.stages.values():
        if stage.takes is not None and stage.queue in spec.keys:
            raise AppError(f"{stage.where}: queue {stage.queue!r} has the name of a key: give it another queue=…")
        check_queue(stage, plain=spec.plain, queue_type=spec.queue_type)
        for middleware in spec.middlewares:
            if middleware.is_around(stage):
                middleware.check(spec.name, stage)
        then = name_of(stage.then) if isinstance(stage.then, Key) else stage.then
        if isinstance(then, str) and not spec.leads_somewhere(then):
            raise AppError(
                f"{stage.where}: then={then!r} leads nowhere: no stage has this key; "
                f"say app.output({then!r}) if another program reads it"
            )


def _check_join(spec: AppSpec, stage: Stage, join: Join) -> None:
    split = spec.stages.get(join.of)
    if split is None:
        raise AppError(f"{stage.where}: of={join.of!r}: app {spec.name!r} has no such stage")
    if split.yields or split.batch is not None or split.name in spec.joins:
        raise AppError(
            f"{stage.where}: of={join.of!r}: the handler of that stage must take one message and return the list "
            f"of its parts; it may not yield, take batches or be a join: {split.where}"
        )
    others = [join.of == other.of and spec.stages[name].replies for name, other in spec.joins.items()]
    if stage.replies and (split.replies or sum(others) > 1):
        raise AppError(
            f"{stage.where}: replies=True: the caller of stage {join.of!r} gets one reply: leave it out of the "
            "others, that stage or its other joins"
        )


def check_queue(stage: Stage, *, plain: bool, queue_type: QueueType) -> None:
    """Raise AppError for a stage whose queue the app can't declare. plain, queue_type: the app's."""
    if stage.single_active and plain:
        raise AppError(
            f"{stage.where}: single_active=True needs a queue with an argument (x-single-active-consumer), and a "
            "plain app declares queues without any: leave out plain, or single_active"
        )
    if stage.queue_arguments and plain:
        raise AppError(
            f"{stage.where}: queue_arguments=… and priorities=… are for queues with arguments, and a plain app "
            "declares queues without any: leave out plain, or these"
        )
    if "x-max-priority" in stage.queue_arguments and queue_type == "quorum":
        raise AppError(
            f"{stage.where}: priorities=… needs a classic queue: a quorum queue has two priorities of its own "
            "(up to 4, and above; RabbitMQ 4.0 and later)"
        )
