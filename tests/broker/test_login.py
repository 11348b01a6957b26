"""Logins: mechanisms, passwords, addresses."""

import pytest

import rabbitry
from rabbitry.amqp.protocol.tables import encode_table
from rabbitry.broker._login import credentials, distinguished_name, may_come_from
from rabbitry.broker._store.journal import Journal
from rabbitry.broker.access import Permission, initial_access

_USERS = {"guest": "guest", "ann": "pässword"}


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
def test_logins_by_user_password_and_address(user: str, password: str, peer: str, expected: bool) -> None:
    access = initial_access(_USERS, ["/"], Journal())
    assert (access.is_password(user, password) and may_come_from(user, peer)) is expected


def test_permissions_are_patterns() -> None:
    access = initial_access({"ann": "secret"}, ["/"], Journal())
    assert access.may("read", "/", "ann", "anything")
    assert not access.may("read", "other", "ann", "anything")
    access.put_permission("/", "ann", Permission("^a", "", "b"))
    assert access.may("configure", "/", "ann", "apple")
    assert not access.may("configure", "/", "ann", "grape")
    assert access.may("read", "/", "ann", "a b c")
    assert not access.may("write", "/", "ann", "x")
    with pytest.raises(rabbitry.UsageError):
        access.put_permission("/", "ann", Permission("(", "", ""))
    access.delete_user("ann")
    assert not access.may_enter("/", "ann")
    assert not access.is_password("ann", "secret")


def test_rabbitmqs_password_hashes_are_accepted() -> None:
    access = initial_access({}, [], Journal())
    access.put_user("guest", "TbAuApfHTi+XS4jK6oAyyCcYAOSr6LmSY2e/JkYljo7INF+2")
    assert access.is_password("guest", "guest")
    assert not access.is_password("guest", "other")
    access.put_user("none", "")
    assert not access.is_password("none", "")


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("plain", "plain"),
        ("ann,O=other", "ann\\,O=other"),
        ('a+b"c\\d;<e>', 'a\\+b\\"c\\\\d\\;\\<e\\>'),
        ("#1", "\\#1"),
        (" both ", "\\ both\\ "),
        (" ", "\\ "),
    ],
)
def test_parts_of_a_certificate_name_are_escaped(value: str, escaped: str) -> None:
    subject = ((("organizationName", "trusted"),), (("commonName", value), ("emailAddress", "a@b")))
    assert distinguished_name(subject) == f"CN={escaped}+EMAILADDRESS=a@b,O=trusted"
