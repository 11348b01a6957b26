"""Masking of secrets in texts, headers and bodies."""

import json

import pytest

from rabbitry.telemetry import MASK, Masking

_S = "hunter2"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"password": "{_S}"}}',
        f'{{"user": {{"apiKey": "{_S}", "n": 1}}}}',
        f'[{{"X-API-Key": ["{_S}"]}}, 2]',
        f'{{"Authorization": {{"a": "{_S}"}}}}',
        f'{{"dbPassword": "{_S}", "note": "cut of',
        f'{{"access token": "{_S}',
        f"password={_S}&user=ann",
        f"user: ann\nSecret: {_S}\n",
        f"Authorization: Bearer {_S}",
        f"{{'token': '{_S}'}}",
        f'{{"a": 1}}\n{{"client_secret": "{_S}"}}\n',
        f'{{"credentials": {{"x": "{_S}", "deep": [1, 2',
    ],
)
def test_secrets_are_not_in_what_is_shown(body: str) -> None:
    shown = (Masking().body(body.encode()) or b"").decode()
    assert _S not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "body",
    [
        b'{"big": 123456789012345678901234567890, "f": 1.50, "e": 1E2, "text": "passwords are fine here"}',
        b'  [1,  2 ]', b"", b'"just a text"', b"plain words", "é".encode() * 3,
    ],
)  # fmt: skip
def test_what_has_no_secrets_stays_byte_for_byte(body: bytes) -> None:
    assert Masking().body(body) == body


def test_what_stands_beside_a_secret_stays_as_it_was_written() -> None:
    body = b'{"big": 123456789012345678901234567890, "f": 1.50, "token": 1, "in": {"a": 1E2}}'
    assert (
        Masking().body(body)
        == f'{{"big":123456789012345678901234567890,"f":1.50,"token":"{MASK}","in":{{"a": 1E2}}}}'.encode()
    )


def test_headers_are_masked_at_each_depth_and_names_can_be_chosen() -> None:
    headers = {"n": 1, "x-auth": {"Set-Cookie": _S, "list": [{"private-key": 1}]}, "note": f"token={_S}"}
    assert Masking().value(headers) == {
        "n": 1, "x-auth": {"Set-Cookie": MASK, "list": [{"private-key": MASK}]}, "note": f"token={MASK}",
    }  # fmt: skip
    assert Masking(["n"]).value({"n": 1, "password": _S}) == {"n": MASK, "password": _S}
    assert Masking([]).body(f"password={_S}".encode()) == f"password={_S}".encode()
    assert Masking([]).value({"password": _S}) == {"password": _S}


def test_a_body_cut_within_a_character_is_masked_too() -> None:
    body = f'{{"password": "{_S}", "x": "é'.encode()[:-1]
    shown = Masking().body(body)
    assert shown is not None
    assert _S.encode() not in shown
    assert shown.endswith(b"\xc3")


def test_hostile_bodies_cost_little() -> None:
    masking = Masking()
    deep = b"[" * 5_000 + b"]" * 5_000
    assert masking.body(deep) == deep
    secret = f'{"[" * 100}{{"password": "{_S}"}}{"]" * 100}'
    assert _S.encode() not in (masking.body(secret.encode()) or _S.encode())
    # A regular expression that backtracks would take hours, and the test's time limit ends it.
    for body in (
        "password" * 2500,
        "a" * 20_000,
        "password=" * 2000,
        '"password' * 2000,
        "- _" * 6000,
        json.dumps("password:" * 2000),
    ):
        masking.body(body.encode())
        masking.is_masked(body)


def test_a_body_that_is_no_text_is_not_shown_unless_nothing_is_masked() -> None:
    body = b"\x81\xa8password\xa7hunter2"  # MessagePack
    assert Masking().body(body) is None
    assert Masking([]).body(body) == body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2, rest", f"password={MASK}, rest"),
        ('{"api_key": "a b", "n": 1}', f'{{"api_key": {MASK}, "n": 1}}'),
        ("Authorization: Bearer abc.def", f"Authorization: {MASK}"),
        ("no host amqp://me:it@broker:5672/", f"no host amqp://{MASK}@broker:5672/"),
        ("DB_PASS='x y' TOKEN: z", f"DB_PASS={MASK} TOKEN: {MASK}"),
        ("KeyError: 'surpass=3 compass=4'", "KeyError: 'surpass=3 compass=4'"),
        ("tokens = [one,\n  in check", f"tokens = {MASK}\n  in check"),
    ],
)
def test_what_follows_the_name_of_a_secret_is_masked_line_by_line(text: str, shown: str) -> None:
    assert Masking().lines(text) == shown
    assert Masking().lines(shown) == shown  # a worker masks an error, and the dashboard once more
    assert Masking([]).lines(text) == text


@pytest.mark.parametrize(
    "name",
    ["password", "Passwd", "api-key", "accessToken", "client_secret", "X-Auth-Token", "dbPass", "DB_PWD"],
)
def test_names_of_secrets_are_told_from_others(name: str) -> None:
    assert Masking().is_masked(name)
    assert Masking().value({"a": [{name: {"deep": 1}}]}) == {"a": [{name: MASK}]}


@pytest.mark.parametrize("name", ["compass", "passage", "bypass", "key", "pwds", ""])
def test_other_names_stay(name: str) -> None:
    assert Masking().value({name: 1}) == {name: 1}


def test_a_table_that_is_nested_too_deeply_is_masked() -> None:
    value: object = {"password": 1}
    for _ in range(2000):
        value = [value]
    assert "password" not in str(Masking().value(value))
