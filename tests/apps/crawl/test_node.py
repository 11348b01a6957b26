"""A node's short id and the lines of its log."""

import re

from rabbitry.apps.crawl.node import Node


def test_draws_a_short_id_of_its_own() -> None:
    ids = {Node("crawler").id for _ in range(50)}
    assert all(re.fullmatch("[0-9a-f]{3,6}", each) for each in ids)
    assert len(ids) > 40


def test_logs_kind_id_time_address_and_text() -> None:
    assert Node("crawler", "a3f").line("http://a.example/", "fetched", 1_763_719_200) == (
        "crawler|a3f|2025-11-21T10:00:00+00:00|http://a.example/|fetched"
    )


def test_keeps_each_line_to_five_fields_and_one_line() -> None:
    line = Node("processor", "a3f").line("http://a.example/?a|b\r\nc d", "one|two\nthree\u2028four\x00", 0)
    assert line == "processor|a3f|1970-01-01T00:00:00+00:00|http://a.example/?a%7Cb%20%20c%20d|one/two three four "


def test_bounds_a_line() -> None:
    line = Node("keeper", "a3f").line("http://a.example/" + "x" * 100_000, "y" * 100_000)
    assert len(line) < 2_500


def test_sends_text_that_is_no_unicode() -> None:
    line = Node("keeper", "a3f").line("http://a.example/\udcff", "\ud800")
    assert line.encode().endswith(b"http://a.example/%20| ")
