"""Answers of Rabbitry's broker as rows."""

import json

import pytest

from rabbitry.exceptions import Undecodable
from rabbitry.web.sources.changes import read_changes
from rabbitry.web.sources.lists import LISTINGS


def test_rows_are_those_of_the_list() -> None:
    columns = ["vhost", "name", "type", "durable", "arguments", "messages_ready", "messages_unacknowledged", "new"]
    row = ["/", "a", "quorum", True, {"x-max-length": 1}, 2, 3, "ignored"]
    answer = {"version": 7, "whole": False, "columns": columns, "rows": [row], "gone": [["/", "b"]]}
    news = read_changes(json.dumps(answer).encode())
    assert (news.version, news.whole, news.gone) == (7, False, [("/", "b")])
    shown = dict(zip([column.name for column in LISTINGS[0].columns], news.rows[0], strict=True))
    assert (shown["features"], shown["ready"], shown["unacked"], shown["messages"]) == ("D Lim", 2, 3, 5)
    assert shown["incoming"] == 0


def test_another_answer_is_refused() -> None:
    with pytest.raises(Undecodable):
        read_changes(b'{"version": 1}')
