"""Values: a page is sent the members that change."""

from rabbitry.web.feed.topics import Value


def test_only_changed_members_are_sent() -> None:
    topic = Value({"a": 1, "b": 2})
    rung = []
    seen = topic.subscribe({}, lambda: rung.append(1))
    assert seen.take() == {"value": {"a": 1, "b": 2}}
    topic.put({"a": 1, "c": 3}, 5.0)
    assert rung == [1]
    assert seen.take() == {"set": {"c": 3}, "unset": ["b"], "at": 5.0}
    assert seen.take() is None


def test_a_topic_is_wanted_while_a_page_subscribes() -> None:
    topic = Value()
    one, two = topic.subscribe({}, lambda: None), topic.subscribe({}, lambda: None)
    assert topic.wanted.is_set()
    topic.unsubscribe(one)
    assert topic.wanted.is_set()
    topic.unsubscribe(two)
    assert not topic.wanted.is_set()
