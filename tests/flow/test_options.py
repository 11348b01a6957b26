"""Options of a stage that make no sense: the error names the app, the stage, the option, and what it must be."""

from typing import Any

import pytest

import rabbitry


async def handler(value: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attempts": 0}, "attempts=0: must be a positive whole number"),
        ({"attempts": "3"}, "attempts='3': must be a positive whole number"),
        ({"attempts": True}, "attempts=True: must be a positive whole number"),
        ({"concurrency": 0}, "concurrency=0: must be a positive whole number, or None"),
        ({"rate": "fast"}, "rate='fast': must be messages in a time, such as '10/s'"),
        ({"rate": 10}, "rate=10: must be messages in a time"),
        ({"total_concurrency": 101}, "total_concurrency=101: must be a number of calls, 1 to 100, or None"),
        ({"time_limit": 0}, "time_limit=0: must be positive seconds"),
        ({"time_limit": float("inf")}, "time_limit=inf: must be positive seconds"),
        ({"delays": [-1]}, r"delays=\[-1\]: must be a list of seconds"),
        ({"delays": 5}, "delays=5: must be a list of seconds"),
        ({"then": 5}, "then=5: must be a key"),
        ({"queue": ""}, "queue='': must be a name"),
        ({"key": "x" * 256}, "key='x+': must be a string of at most 255 bytes"),
        ({"batch": 0}, "batch=0: must be a number of messages"),
        ({"batch": 70_000}, "batch=70000: must be a number of messages"),
        ({"processes": 2}, "processes=2: must be True or False"),
        ({"retry": 3}, r"unknown option retry=; did you mean attempts=\?"),
        ({"attempt": 3}, r"unknown option attempt=; did you mean attempts=\?"),
        ({"zzz": 3}, "unknown option zzz= .options are key, queue"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(rabbitry.AppError, match=text) as caught:
        rabbitry.App("wrong").stage(**({"key": "in"} | options))(handler)
    assert str(caught.value).startswith("app 'wrong', stage 'handler' (")
    assert "test_options.py" in str(caught.value)
