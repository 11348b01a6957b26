"""Hashes of passwords."""

import pytest

from rabbitry.apps.passwords import LOG_COST, hash_password, is_hash, is_password

_LIGHT = hash_password("pässword", log_cost=1)
_OTHER = f"$scrypt$ln=1,r=8,p=3${'a' * 22}${'b' * 43}"  # the same in all processes of a run


def test_a_password_has_its_hash_alone() -> None:
    assert is_hash(_LIGHT)
    assert hash_password("pässword", log_cost=1) != _LIGHT  # the salt
    assert is_password("pässword", _LIGHT)
    assert is_password("pa\u0308ssword", _LIGHT)  # the same letters from another keyboard
    for wrong in ("passwörd", "", "pässword ", "\ud800"):
        assert not is_password(wrong, _LIGHT)


def test_the_usual_hash_is_slow_and_within_the_limit() -> None:
    hashed = hash_password("x" * 1024)
    assert hashed.startswith(f"$scrypt$ln={LOG_COST},r=8,p=3$")
    assert is_hash(hashed)
    assert is_password("x" * 1024, hashed)


@pytest.mark.parametrize(
    "text",
    [
        "", "secret", "$2b$12$abc", _OTHER[:-1], f"{_OTHER}=", _OTHER.replace("ln=1,", "ln=0,"),
        _OTHER.replace("ln=1,", "ln=40,"), _OTHER.replace("ln=1,r=8", "ln=18,r=16"),
        _OTHER.replace("scrypt", "argon2id"),
    ],
)  # fmt: skip
def test_what_is_no_hash_or_needs_too_much_memory_is_refused(text: str) -> None:
    assert not is_hash(text)


def test_what_is_no_hash_is_nobodys() -> None:
    assert not is_password("secret", "secret")
