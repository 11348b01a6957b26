"""The queues of an app that hold no messages of its own."""

import rabbitry
from rabbitry.flow.wiring.cancelling import cancelled_queue
from rabbitry.flow.wiring.tokens import holds_tokens
from rabbitry.flow.wiring.topology import derive


def test_the_queues_of_limits_schedules_and_cancellations_are_known() -> None:
    app = rabbitry.App("shop")

    @app.stage("order", rate="1/s", total_concurrency=2)
    async def check(order: str) -> None: ...

    @app.every("1h")
    async def clean(tick: rabbitry.Tick) -> None: ...

    declared = {queue.name: queue.arguments for queue in derive(app.spec()).queues}
    assert {name for name, arguments in declared.items() if holds_tokens(name, arguments)} == {
        "shop.rate.check", "shop.schedule.clean", "shop.slot.check.1", "shop.slot.check.2",
        "shop.tokens.check",
    }  # fmt: skip
    assert holds_tokens(cancelled_queue("shop"), {"x-single-active-consumer": True})
    assert not holds_tokens("my.tokens.queue", {})
    assert not holds_tokens("my.rate.queue", {})
