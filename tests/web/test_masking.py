"""Masking of secrets in messages."""

import json

import pytest

from rabbitry.web.masking import MASK, Masking

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
    shown = Masking().body(body.encode()).decode()
    assert _S not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "body",
    [
        b'{"big": 123456789012345678901234567890, "f": 1.50, "e": 1E2, "text": "passwords are fine here"}',
        b'  [1,  2 ]', b"", b"\xff\xfe password=x", b'"just a text"', b"plain words", "é".encode() * 3,
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
    assert _S.encode() not in shown
    assert shown.endswith(b"\xc3")


def test_hostile_bodies_cost_little() -> None:
    masking = Masking()
    deep = b"[" * 5_000 + b"]" * 5_000
    assert masking.body(deep) == deep
    secret = f'{"[" * 100}{{"password": "{_S}"}}{"]" * 100}'
    assert _S.encode() not in masking.body(secret.encode())
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
