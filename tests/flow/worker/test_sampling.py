"""The passages that a worker reports: the same chains in all stages, few at high rates, and failures always."""

import uuid
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import rabbitry
from rabbitry.amqp.client import Delivery, Properties
from rabbitry.amqp.protocol.properties import EncodedProperties, encode_header
from rabbitry.flow._trail import next_properties, read
from rabbitry.flow.message import Publication, Role
from rabbitry.flow.worker._job import DONE, Job, Led, Result
from rabbitry.flow.worker._sampling import MOST_FAILURES, MOST_LED, MOST_SAMPLED, Sampler
from rabbitry.telemetry import MOST_PASSAGES


def _jobs(*stages: str) -> Any:
    app = rabbitry.App("sampled")
    for name in stages:

        @app.stage(name, name=name)
        async def handle(text: str) -> None:
            return None

    made = {
        name: SimpleNamespace(stage=app.spec().stages[name], queue=f"sampled.{name}", generation=0) for name in stages
    }

    def job(stage: str, chain: str) -> Job:
        properties = Properties(correlation_id=chain, message_id=f"{chain}-{stage}", timestamp=1000)
        header = SimpleNamespace(
            header=encode_header(properties, 0), properties=properties, body=b"", exchange="e", routing_key="k"
        )
        return Job(made[stage], header)  # type: ignore[arg-type] # what a job reads of a delivery

    return job


def _record(sampler: Sampler, job: Job, result: Result = DONE, outgoing: list[Publication] | None = None) -> None:
    if result.kind != "done" or not crc32(job.trail.correlation) & sampler.mask:  # as `Counting.handled` asks
        sampler.record(job, result, [] if outgoing is None else outgoing)


def test_at_high_rates_each_stage_reports_the_same_chains() -> None:
    job, sampler = _jobs("one", "two"), Sampler()
    chains = [uuid.UUID(int=number * 7919).hex for number in range(2000)]
    for chain in chains:
        _record(sampler, job("one", chain))
        _record(sampler, job("two", chain))
    assert sampler.share < 0.1
    (first, missed), (second, _) = sampler.take("one"), sampler.take("two")
    assert 0 < len(first) <= MOST_SAMPLED
    assert missed == 0
    assert abs(len(first) - len(second)) <= 1  # the list of one may just have been full
    assert {one.correlation_id for one in second} <= {one.correlation_id for one in first}
    share = sampler.share
    sampler.widen()
    assert sampler.share == share * 2


def test_failures_are_reported_outside_the_share_and_one_long_chain_does_not_close_it() -> None:
    job, sampler = _jobs("one"), Sampler()
    for _ in range(MOST_SAMPLED + 50):
        _record(sampler, job("one", "always the same"))
    assert sampler.share == 1.0
    for number in range(1000):
        _record(sampler, job("one", f"other {number}"), Result("failed", error="ValueError: token=abc", trace="x"))
    passages, missed = sampler.take("one")
    assert missed >= 50
    assert MOST_FAILURES <= len(passages) <= MOST_PASSAGES
    assert {one.error for one in passages} <= {"", "ValueError: token=***"}


def test_a_result_has_the_id_that_the_passage_names() -> None:
    job, sampler = _jobs("one"), Sampler()
    cause = job("one", "chain")
    properties = next_properties("sampled", cause.trail, "application/json", "int")
    letter = Publication("", "sampled.dead", b"", Properties(message_id="chain-one"), role=Role.DEAD)
    outgoing = [Publication("e", "k", b"", properties, role=Role.RESULT), letter]
    _record(sampler, cause, outgoing=outgoing)
    ((passage,), _) = sampler.take("one")
    given = outgoing[0].properties
    assert isinstance(given, EncodedProperties)
    assert passage.ids == [given.decoded().message_id, "chain-one"]
    assert passage.end == "dead"
    assert passage.message_id == "chain-one"
    assert passage.published == 1000
    assert read(_as_delivery(given)).correlation == b"chain"


def test_what_a_handler_yielded_is_named_before_its_results() -> None:
    job, sampler = _jobs("one"), Sampler()
    cause, led = job("one", "chain"), Led()

    def results(number: int) -> list[Publication]:
        properties = next_properties("sampled", cause.trail, "application/json", "int")
        return [Publication("e", f"k{each}", b"", properties, role=Role.RESULT) for each in range(number)]

    yielded = results(2)
    sampler.name(cause, yielded, led)
    sampler.record(cause, DONE, results(MOST_LED), led)
    ((passage,), _) = sampler.take("one")
    given = [one.properties.decoded().message_id for one in yielded if isinstance(one.properties, EncodedProperties)]
    assert passage.ids[:2] == given
    assert passage.keys[:3] == ["k0", "k1", "k0"]
    assert (len(passage.ids), len(passage.keys), passage.led) == (MOST_LED, MOST_LED, MOST_LED + 2)


def _as_delivery(given: EncodedProperties) -> Delivery:
    properties = given.decoded()
    return SimpleNamespace(header=encode_header(properties, 0), properties=properties)  # type: ignore[return-value] # all that is read
