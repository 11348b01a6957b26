"""Publications: for a result, in place of handling a message, and in place of a message that can't be published."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rabbitry._errors import described
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.properties import EncodedProperties
from rabbitry.amqp.protocol.tables import decode_text
from rabbitry.exceptions import PreconditionFailed, PublishReturned
from rabbitry.flow._fitting import ERROR
from rabbitry.flow._parts import part_of
from rabbitry.flow._replies import HANDLED, ReplyTo, caller_of, error_reply, reply
from rabbitry.flow._trail import Trail, next_properties, next_properties_with
from rabbitry.flow.message import (
    NOTE,
    REASON,
    RESULT,
    Death,
    Publication,
    Role,
    again,
    dead_properties,
    origin,
    properties_of,
    text_header,
    uncounted_of,
    uncounted_pause,
)
from rabbitry.flow.timing import Expiry, read_expiry
from rabbitry.flow.wiring.dead_letters import dead_queue
from rabbitry.flow.wiring.retries import later, onward, spread, suspects_queue
from rabbitry.flow.worker._job import CANCELLED, BatchJob, Job, Product, Result
from rabbitry.flow.worker._splitting import cause_of, notice, outer, parts, result_id

if TYPE_CHECKING:
    from rabbitry.flow.spec import AppSpec
    from rabbitry.flow.stage import Stage

FEWEST_DELIVERIES: Final = 3
"""The least number of attempts before a suspect becomes a dead letter, even if its stage allows only one: the worker
may have died for another reason."""
_NOT_KEPT: Final = "a message with its key was handled before, and the answer to it is not kept"
_FIRST: Final = Trail(1, 0.0, b"", b"")
"""The trail of what begins a chain of its own."""


def outgoing_of(
    spec: AppSpec, job: Job, result: Result, limit: int, *, waits: bool = True, first: int = 0
) -> list[Publication]:
    """Return what is published for the result of a message.

    limit: bytes that a message's properties may take. waits: whether another attempt waits for its delay. first: how
    many values its handler has yielded before.
    """
    stage, delivery = job.stage, job.delivery
    if result.kind in ("done", "yielded", "skipped"):
        if spec.joins:
            outgoing = _of_joins(spec, job, result, waits=waits, first=first)
        else:
            outgoing = [_product(spec, stage, job.trail, product, result.context) for product in result.products]
        if result.reply is not None and (caller := _caller(spec, job)):
            outgoing.append(reply(spec.name, caller, result.reply))
        elif result.kind == "skipped" and (caller := _caller(spec, job)):
            outgoing.append(error_reply(spec.name, caller, HANDLED, _NOT_KEPT))
        return outgoing
    if result.kind in ("given-back", "abandoned"):
        # Published anew, since a delivery that is given back comes redelivered, and is counted as an attempt.
        if result.after is not None:
            return [later(spec.name, job.source.queue, delivery, job.attempt, result.after, limit)]
        properties = again(delivery, job.attempt, limit, is_interrupted=result.kind == "abandoned")
        return [Publication("", job.source.queue, delivery.body, properties, role=Role.AGAIN)]
    if result.kind == "suspect":
        # The store may have its claim, which must not take it for a copy of itself.
        return [_among_suspects(spec, job, job.attempt, limit, is_interrupted=stage.takes is not None)]
    is_counted = result.is_counted or uncounted_of(properties_of(delivery)) >= stage.uncounted
    if result.kind == "rejected" or (is_counted and job.attempt >= stage.attempts):
        letter = dead_letter_of(spec.name, job, result, limit)
        return [letter, *replies_of_dead(spec, job, letter)]
    attempt = job.attempt + 1 if is_counted else job.attempt
    delay, rest = stage.delay(job.attempt) if result.after is None else result.after, 0.0
    if not waits:
        delay = 0.0
    elif stage.jitter and result.after is None:
        rest = spread(delay * stage.jitter)
    return [later(spec.name, stage.queue, delivery, attempt, delay, limit, rest=rest, is_counted=is_counted)]


def _of_joins(spec: AppSpec, job: Job, result: Result, *, waits: bool, first: int) -> list[Publication]:
    """Return what is published for a result in an app with joins: parts are numbered, a whole job is not a part."""
    is_join = job.stage.name in spec.joins
    cause = cause_of(job, is_join=is_join)
    trail = outer(job.trail) if is_join else job.trail

    def product_of(number: int, trail: Trail, product: Product) -> Publication:
        message = _product(spec, job.stage, trail, product, result.context)
        # Copies of a part keep ids of their own: a join tells the message that runs it from a copy by its id.
        if cause is None or trail.part or not isinstance(message.properties, EncodedProperties):
            return message
        identity = result_id(cause, job.stage.queue, first + number)
        return message._replace(properties=message.properties._replace(message_id=identity))

    joins = [join for join in spec.joins.values() if join.of == job.stage.name]
    if not joins or not result.was_called:
        return [product_of(number, trail, product) for number, product in enumerate(result.products)]
    own_parts = [product for product in result.products if not _is_note(job.stage, product)]
    notes = [product for product in result.products if _is_note(job.stage, product)]
    count = len(own_parts)
    caller = (properties_of(job.delivery).reply_to or "") if spec.is_joined_for_caller(job.stage) else ""
    trails = parts(trail, job.delivery, count, caller)
    outgoing = [notice(spec.name, trail, job.delivery, count, join, caller) for join in joins if waits or not count]
    for number, (own, product) in enumerate(zip(trails, own_parts, strict=True)):
        outgoing.append(product_of(number, own, product))
    return outgoing + [product_of(count, trail, product) for product in notes]


def _caller(spec: AppSpec, job: Job) -> ReplyTo | None:
    """Return who waits for the result of a message, or of the job that it is a part of; None if nobody does."""
    if job.stage.name in spec.joins:
        part = part_of(job.trail.part) if job.stage.replies else None
        return ReplyTo(part.caller, decode_text(job.trail.correlation)) if part is not None and part.caller else None
    return caller_of(properties_of(job.delivery)) if spec.is_answered(job.stage) else None


def replies_of_dead(spec: AppSpec, job: Job, letter: Publication) -> list[Publication]:
    """Return what the caller of a message gets if this is its dead letter; nothing if nobody waits for a reply."""
    if letter.role not in (Role.DEAD, Role.BARE) or (caller := _caller(spec, job)) is None:
        return []
    headers = letter.properties.headers if isinstance(letter.properties, Properties) else None
    reason, error = (text_header(headers or {}, name) or "" for name in (REASON, ERROR))
    return [error_reply(spec.name, caller, reason, error)]


def replies_of_cancelled(spec: AppSpec, job: Job) -> list[Publication]:
    """Return the error reply for the caller of a cancelled message; none if nobody waits for a reply."""
    if (caller := _caller(spec, job)) is None:
        return []
    return [error_reply(spec.name, caller, CANCELLED.reason, CANCELLED.error)]


def outgoing_of_batch(spec: AppSpec, batch: BatchJob, result: Result) -> list[Publication]:
    """Return what is published for the values that the handler of a batch returned or yielded."""
    outgoing = []
    for product in result.products:
        place = None if product.extra is None else product.extra.place
        if place is None and len(batch.jobs) == 1:
            place = 0
        trail = _FIRST if place is None else batch.jobs[place].trail
        outgoing.append(_product(spec, batch.stage, trail, product, result.context))
    return outgoing


def _product(spec: AppSpec, stage: Stage, trail: Trail, product: Product, context: bytes | None) -> Publication:
    key = product.key
    version = spec.version_of(key) if spec.types else 1
    if product.extra is None:
        properties = next_properties(spec.name, trail, product.content_type, product.type_name, context, version)
    else:
        properties = next_properties_with(
            spec.name, trail, product.content_type, product.type_name, product.extra.given, context, version
        )
    role = NOTE if _is_note(stage, product) else RESULT
    return Publication(spec.exchange_of(key), key, product.body, properties, mandatory=spec.is_required(key), role=role)


def _is_note(stage: Stage, product: Product) -> bool:
    """Return whether a product is the note of a stage behind a store to itself (`_gates`)."""
    return stage.takes is not None and product.key == stage.queue


def _among_suspects(spec: AppSpec, job: Job, attempt: int, limit: int, *, is_interrupted: bool = False) -> Publication:
    """Return what sends a message to the suspects. is_interrupted: whether the attempt is the same, begun anew."""
    properties = again(job.delivery, attempt, limit, is_interrupted=is_interrupted)
    return Publication("", suspects_queue(spec.name, job.stage.name), job.delivery.body, properties, role=Role.AGAIN)


def expired(job: Job) -> Expiry | None:
    """Return when a message expired; None if it has not, or if a worker has taken it before."""
    if not job.trail.expires or job.attempt > 1 or job.delivery.redelivered:
        return None
    expiry = read_expiry(job.trail.expires)
    return expiry if expiry is not None and expiry.at < time.time() else None


def before_handling(spec: AppSpec, job: Job, limit: int) -> Publication | None:
    """Return what is published in place of handling a job; None if it can be handled. limit: see outgoing_of.

    A redelivered message may have killed its worker, or was handled beside a message that did. First an attempt is
    counted for it, and it goes to the queue of suspects, from which workers take one message at a time. A message that
    is redelivered from there was therefore handled alone, or only waited there when the broker crashed, which does not
    count. The messages of a batch get one more chance together before that, because hundreds of them were in hand, and
    alone each costs what a batch costs. A message that came from a retry queue before its delay was over goes to
    another retry queue. One whose type has a newer version is left to newer workers.
    """
    stage, delivery = job.stage, job.delivery
    rest = job.trail.wait
    if (expiry := expired(job)) is not None:
        text = f"no worker took it in time: it expired {time.time() - expiry.at:.1f} s ago"
        return dead_letter_of(spec.name, job, Result("rejected", reason="expired", error=text), limit)
    if delivery.redelivered and not (job.is_suspect and job.source.excuses(delivery)):
        attempt = job.attempt + 1
        if job.is_suspect and attempt > max(stage.attempts, FEWEST_DELIVERIES):
            text = (
                f"delivered {job.attempt} times and never settled: it may kill its worker or exceed a time limit there"
            )
            return dead_letter_of(spec.name, job, Result("failed", reason="failed", error=text), limit)
        if rest:
            return onward(spec.name, stage.queue, delivery, attempt, rest, limit)
        if stage.batch is not None and job.attempt == 1 and not job.is_suspect:
            return later(spec.name, stage.queue, delivery, attempt, 0.0, limit)
        return _among_suspects(spec, job, attempt, limit)
    if rest:
        return onward(spec.name, stage.queue, job.delivery, job.attempt, rest, limit)
    return _left_to_newer(spec, job, limit) if job.trail.version > 1 else None


def _left_to_newer(spec: AppSpec, job: Job, limit: int) -> Publication | None:
    """Return what is published if this worker does not know the version of the message's type; None if it does.

    The message comes again after 1, 2, 4, … 30 seconds, as one whose retries are not counted: newer workers run, or
    will.
    """
    stage, properties = job.stage, properties_of(job.delivery)
    _, key = origin(job.delivery, properties.headers or {})
    known = spec.version_of(key if key in spec.types else stage.key)
    if job.trail.version <= known:
        return None
    number = uncounted_of(properties)
    if number < stage.uncounted:
        pause = uncounted_pause(number)
        return later(spec.name, stage.queue, job.delivery, job.attempt, pause, limit, is_counted=False)
    text = f"version {job.trail.version} of its type, and the workers know version {known}: replay it to newer ones"
    return dead_letter_of(spec.name, job, Result("rejected", reason="version", error=text), limit)


def instead_of(spec: AppSpec, job: Job, message: Publication, error: BaseException, limit: int) -> Publication | None:
    """Return what is published in place of a message that the broker refuses; None if nothing is left to try."""
    match message.role:
        case Role.RESULT if not isinstance(error, PreconditionFailed):  # which says that the body is too large
            return dead_letter_of_result(spec.name, job, message, error, limit)
        case Role.RESULT | Role.DEAD_RESULT:
            key = message.routing_key if message.role is Role.RESULT else "of its dead letter"
            text = f"a result of {len(message.body)} bytes (key {key!r}) can't be published: {described(error)}"
            return dead_letter_of(spec.name, job, Result("rejected", reason="refused", error=text), limit)
        case Role.REPLY if (caller := _caller(spec, job)) is not None:
            text = f"the reply of {len(message.body)} bytes can't be published: {described(error)}"
            return error_reply(spec.name, caller, "refused", text)
        case Role.AGAIN | Role.NOTICE:
            what = "the message" if message.role is Role.AGAIN else "what tells the join of the parts"
            text = f"{what} can't be published: {described(error)}"
            return dead_letter_of(spec.name, job, Result("rejected", reason="refused", error=text), limit)
        case Role.DEAD:
            headers = message.properties.headers if isinstance(message.properties, Properties) else None
            why = text_header(headers or {}, ERROR) or ""
            text = f"{why} (its properties can't be published: {described(error)})"
            reason = text_header(headers or {}, REASON) or "failed"
            return dead_letter_of(spec.name, job, Result("rejected", reason=reason, error=text), limit, is_bare=True)
    return None


def dead_letter_of(app: str, job: Job, result: Result, limit: int, *, is_bare: bool = False) -> Publication:
    """Make the dead letter of an input.

    Args:
        app: the app's name.
        job: the input.
        result: its reason, error and traceback.
        limit: bytes that the properties may take.
        is_bare: leave out what other programs wrote into the properties.
    """
    properties = properties_of(job.delivery)
    exchange, key = origin(job.delivery, properties.headers or {})
    death = Death(
        result.reason, result.error, result.trace, job.stage.name, exchange, key, job.stage.queue, job.attempt
    )
    return Publication(
        "",
        dead_queue(app),
        job.delivery.body,
        dead_properties(Properties() if is_bare else properties, death, limit),
        role=Role.BARE if is_bare else Role.DEAD,
    )


def dead_letter_of_result(app: str, job: Job, message: Publication, error: BaseException, limit: int) -> Publication:
    """Make the dead letter of a result that no queue took, or that the broker refused. limit: see dead_letter_of."""
    properties = message.properties
    reason = "unroutable" if isinstance(error, PublishReturned) else "refused"
    death = Death(reason, described(error), "", job.stage.name, message.exchange, message.routing_key, "", 1)
    return Publication(
        "",
        dead_queue(app),
        message.body,
        dead_properties(properties if isinstance(properties, Properties) else properties.decoded(), death, limit),
        role=Role.DEAD_RESULT,
    )
