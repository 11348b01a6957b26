"""Secrets in texts that people are shown."""

import pytest

from rabbitry.telemetry import is_secret, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2, rest", "password=***, rest"),
        ('{"api_key": "a b", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("no host amqp://me:it@broker:5672/", "no host amqp://***@broker:5672/"),
        ("DB_PASSWORD='x y' TOKEN: z", "DB_PASSWORD=*** TOKEN: ***"),
        ("KeyError: 'tokenizer=3 compass=4'", "KeyError: 'tokenizer=3 compass=4'"),
    ],
)
def test_what_follows_the_name_of_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("name", ["password", "Passwd", "api-key", "accessToken", "client_secret", "X-Auth-Token"])
def test_such_names_are_those_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["compass", "tokenizer", "secretary", "passage", "key", ""])
def test_other_names_are_not(name: str) -> None:
    assert not is_secret(name)
