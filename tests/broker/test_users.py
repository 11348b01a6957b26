"""Users and permissions as definitions hold them."""

import pytest

from warren.broker.users import Permission, User, Users, hash_password
from warren.exceptions import UsageError

# rabbitmqctl's own example in RabbitMQ's docs/passwords: salt 908DC60A, password test12.
_TEST12 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_rabbitmqs_hash_is_understood() -> None:
    user = User.from_definition({"name": "ann", "password_hash": _TEST12, "tags": "administrator,management"})
    assert user.has_password("test12")
    assert not user.has_password("test13")
    assert user.tags == ("administrator", "management")


def test_a_user_comes_back_from_its_definition() -> None:
    user = User("ann", hash_password("pässword"), ("monitoring",))
    again = User.from_definition(user.definition())
    assert again == user
    assert again.has_password("pässword")
    assert user.password_hash not in repr(user)


def test_no_hash_is_no_login() -> None:
    assert not User("ann", "").has_password("")


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"name": 1, "password_hash": _TEST12},
        {"name": "ann", "password_hash": "?"},
        {"name": "ann", "password_hash": "c2hvcnQ="},
        {"name": "ann", "password_hash": _TEST12, "hashing_algorithm": "rabbit_password_hashing_md5"},
        {"name": "ann", "password_hash": _TEST12, "tags": [1]},
    ],
)
def test_what_is_no_user(definition: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        User.from_definition(definition)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [("", "q", False), ("", "", True), (".*", "q", True), ("ask", "tasks", True), ("^ask", "tasks", False)],
)
def test_patterns_are_found_anywhere(pattern: str, name: str, expected: bool) -> None:
    assert Permission(pattern, pattern, pattern).allows("write", name) is expected


def test_a_permission_comes_back_from_its_definition() -> None:
    permission = Permission("a", "b", "c")
    assert Permission.from_definition(permission.definition("ann", "/")) == permission


@pytest.mark.parametrize("definition", [{}, {"configure": "(", "write": "", "read": ""}])
def test_what_is_no_permission(definition: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Permission.from_definition(definition)


def test_permissions_go_with_their_user_and_vhost() -> None:
    changes: list[None] = []
    users = Users(lambda: changes.append(None))
    users.put(User("ann", ""))
    users.permit("ann", "/", Permission())
    users.permit("ann", "other", Permission())
    assert users.allows("ann", "/", "write", "q")
    users.revoke("ann", "/")
    assert not users.allows("ann", "/", "write", "q")
    assert users.may_enter("ann", "other")
    users.forget_vhost("other")
    assert not users.may_enter("ann", "other")
    users.permit("ann", "/", Permission())
    users.delete("ann")
    users.put(User("ann", ""))
    assert not users.may_enter("ann", "/")
    assert len(changes) == 8
    with pytest.raises(UsageError):
        users.permit("bob", "/", Permission())
    with pytest.raises(UsageError):
        users.delete("bob")
