"""The frozen description of an app: what it says of keys and stages, and that later changes don't reach it."""

import dataclasses

import pytest

import rabbitry
from rabbitry.flow.spec import topic_matches


def _app() -> rabbitry.App:
    app = rabbitry.App("shop")

    @app.stage("in", then="out")
    async def take(value: str) -> str:
        return value

    app.output("out", required=False)
    app.output("aside", exchange="other")
    return app


def test_a_spec_is_the_app_as_it_was() -> None:
    app = _app()
    spec = app.spec()

    @app.stage("late", exchange="third")
    async def late(value: str) -> None: ...

    app.outputs.pop("out")
    assert (list(spec.stages), list(spec.outputs)) == (["take"], ["out", "aside"])
    assert not spec.leads_somewhere("late")
    assert spec.exchange_of("late") == "shop"
    assert app.spec().exchange_of("late") == "third"
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc] # that is what is tested


def test_a_spec_tells_where_messages_go_and_if_routing_is_required() -> None:
    spec = _app().spec()
    assert [spec.exchange_of(key) for key in ("in", "out", "aside")] == ["shop", "shop", "other"]
    assert [spec.is_required(key) for key in ("in", "out", "aside")] == [True, False, True]
    assert [spec.leads_somewhere(key) for key in ("in", "out", "aside", "nowhere")] == [True, True, True, False]


def test_stages_are_selected_by_name() -> None:
    spec = _app().spec()
    assert spec.select(None) == spec.select(["take"]) == list(spec.stages.values())
    assert spec.select([]) == []
    with pytest.raises(rabbitry.UsageError, match="no stage 'absent'; it has take"):
        spec.select(["take", "absent"])


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("#.c", "a.b.c", True),
        ("#", "", True),
        ("*", "", True),
        ("a", "b", False),
        ("#.a.#", "b.c", False),
        ("#." * 120 + "b", "a." * 120 + "a", False),
    ],
)
def test_a_key_is_matched_as_a_topic_exchange_does(pattern: str, key: str, matches: bool) -> None:
    assert topic_matches(pattern, key) is matches
    app = rabbitry.App("topics", exchange_type="topic")
    app.output(pattern)
    assert app.spec().leads_somewhere(key) is matches
