"""Who may log in."""

import pytest

from warren.amqp.protocol.tables import encode_table
from warren.broker.login import credentials, is_allowed
from warren.broker.users import User, Users, hash_password

_USERS = Users(lambda: None)
_USERS.put(User("guest", hash_password("guest")))
_USERS.put(User("ann", hash_password("pässword")))


@pytest.mark.parametrize(
    ("mechanism", "response", "expected"),
    [
        ("PLAIN", b"\0ann\0secret", ("ann", "secret")),
        ("PLAIN", b"other\0ann\0secret", ("ann", "secret")),
        ("PLAIN", b"ann secret", None),
        ("PLAIN", b"\0ann\0sec\0ret", None),
        ("AMQPLAIN", encode_table({"LOGIN": "ann", "PASSWORD": "secret"})[4:], ("ann", "secret")),
        ("AMQPLAIN", encode_table({"LOGIN": "ann"})[4:], None),
        ("AMQPLAIN", b"\x05LOGIN", None),
        ("KERBEROS", b"\0ann\0secret", None),
    ],
)
def test_credentials(mechanism: str, response: bytes, expected: tuple[str, str] | None) -> None:
    assert credentials(mechanism, response) == expected


@pytest.mark.parametrize(
    ("user", "password", "peer", "expected"),
    [
        ("guest", "guest", "127.0.0.1", True),
        ("guest", "guest", "::1", True),
        ("guest", "guest", "192.0.2.7", False),
        ("guest", "wrong", "127.0.0.1", False),
        ("ann", "pässword", "192.0.2.7", True),
        ("ann", "", "127.0.0.1", False),
        ("nobody", "", "127.0.0.1", False),
    ],
)
def test_who_may_log_in(user: str, password: str, peer: str, expected: bool) -> None:
    assert is_allowed(user, password, _USERS, peer) is expected
