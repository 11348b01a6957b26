"""Virtual hosts, users, permissions and policies."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from starlette.responses import Response

from rabbitry.broker.access import Permission
from rabbitry.broker.management import accounts, definitions, views
from rabbitry.broker.management.call import CREATED, DONE, Answer, Call, bad, need_keys, not_found, route
from rabbitry.broker.management.encoding import Json
from rabbitry.broker.management.listing import Listed, answer
from rabbitry.broker.management.rates import vhost_totals
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.broker.vhost import VirtualHost


@route("/api/vhosts")
def _vhosts(call: Call) -> object:
    return _list_vhosts(call)


async def _list_vhosts(call: Call) -> Response:
    ranges = call.ranges
    if call.disables_stats:
        return await answer(call, Listed(call.vhosts(), views.vhost, order=("name",), has_pages=True))
    async with call.pace as pace:
        totals = await vhost_totals(call.broker, pace)

    def view(item: "VirtualHost") -> Json:
        return views.vhost_with_stats(item, call.rates, totals[item], ranges)

    found = [item for item in call.vhosts() if item in totals]
    return await answer(call, Listed(found, view, order=("name",), has_pages=True))


@route("/api/vhosts/{vhost}", "GET", "PUT", "DELETE")
def _vhost(call: Call) -> object:
    if call.method == "PUT":
        call.administrator()
        call.body()
        is_new = call.path("vhost") not in call.broker.vhosts
        call.broker.add_vhost(call.path("vhost"))
        call.broker.access.put_permission(call.path("vhost"), call.user.name, Permission())
        return CREATED if is_new else DONE
    if call.method == "DELETE":
        call.administrator()
        call.broker.delete_vhost(call.vhost().name)
        return DONE
    return _show_vhost(call)


async def _show_vhost(call: Call) -> Json:
    vhost, ranges = call.vhost(), call.ranges
    async with call.pace as pace:
        totals = await vhost_totals(call.broker, pace)
    if vhost not in totals:
        raise not_found()
    return views.vhost_with_stats(vhost, call.rates, totals[vhost], ranges)


def _list_permissions(call: Call, found: list[tuple[str, str, Permission]]) -> Awaitable[Response]:
    return answer(call, Listed(found, lambda item: views.permission(*item), order=("vhost", "user")))


@route("/api/vhosts/{vhost}/permissions")
def _vhost_permissions(call: Call) -> object:
    call.administrator()
    name = call.vhost().name
    found = call.broker.access.permissions.items()
    return _list_permissions(call, [(*key, item) for key, item in found if key[0] == name])


@route("/api/users")
def _users(call: Call) -> object:
    call.administrator()
    return answer(call, Listed(list(call.broker.access.users.values()), views.user, order=("name",)))


@route("/api/users/without-permissions")
def _users_without_permissions(call: Call) -> object:
    call.administrator()
    access = call.broker.access
    with_any = {user for _, user in access.permissions}
    found = [item for item in access.users.values() if item.name not in with_any]
    return answer(call, Listed(found, views.user, order=("name",)))


@route("/api/users/bulk-delete", "POST")
def _delete_users(call: Call) -> object:
    call.administrator()
    names = call.body().get("users")
    if not isinstance(names, list):
        raise bad("[{key_missing,users}]")
    for name in names:
        if not isinstance(name, str) or name not in call.broker.access.users:
            raise Answer(400, "bad_request", ["no_such_user", name])
        call.broker.delete_user(name)
    return DONE


@route("/api/users/{name}", "GET", "PUT", "DELETE")
def _user(call: Call) -> object:
    call.administrator()
    name, access = call.path("name"), call.broker.access
    if call.method == "PUT":
        is_new = name not in access.users
        body = call.body()
        if body.get("tags") is None:
            raise bad("tags_not_present")
        access.put_user(name, *accounts.read(body))
        return CREATED if is_new else DONE
    if name not in access.users:
        raise not_found()
    if call.method == "DELETE":
        call.broker.delete_user(name)
        return DONE
    return views.user(access.users[name])


@route("/api/users/{name}/permissions")
def _user_permissions(call: Call) -> object:
    call.administrator()
    name = call.path("name")
    if name not in call.broker.access.users:
        raise not_found()
    found = call.broker.access.permissions.items()
    return _list_permissions(call, [(*key, item) for key, item in found if key[1] == name])


@route("/api/permissions")
def _permissions(call: Call) -> object:
    call.administrator()
    found = call.broker.access.permissions.items()
    return _list_permissions(call, [(*key, item) for key, item in found])


@route("/api/permissions/{vhost}/{user}", "GET", "PUT", "DELETE")
def _permission(call: Call) -> object:
    call.administrator()
    access, vhost, user = call.broker.access, call.path("vhost"), call.path("user")
    if vhost not in call.broker.vhosts or user not in access.users:
        raise bad("vhost_or_user_not_found") if call.method == "PUT" else not_found()
    known = access.permissions.get((vhost, user))
    if call.method == "PUT":
        body = call.body()
        need_keys(body, *Permission._fields)
        if not all(isinstance(body[kind], str) for kind in Permission._fields):
            raise bad("permissions are regular expressions")
        try:
            access.put_permission(vhost, user, Permission(*(str(body[kind]) for kind in Permission._fields)))
        except UsageError as error:
            raise bad(f"invalid regular expression: {error}") from error
        return CREATED if known is None else DONE
    if known is None:
        raise not_found()
    if call.method == "DELETE":
        access.delete_permission(vhost, user)
        return DONE
    return views.permission(vhost, user, known)


@route("/api/policies")
@route("/api/policies/{vhost}")
def _policies(call: Call) -> object:
    call.policymaker()
    names = {vhost.name for vhost in call.vhosts()}
    return answer(call, Listed([policy for policy in call.broker.policies if policy.vhost in names], views.policy))


@route("/api/policies/{vhost}/{name}", "GET", "PUT", "DELETE")
def _policy(call: Call) -> object:
    call.policymaker()
    vhost, name = call.vhost().name, call.path("name")
    known = call.broker.policies.get(vhost, name)
    if call.method == "PUT":
        call.broker.put_policy(definitions.policy(call.body() | {"vhost": vhost, "name": name}))
        return CREATED if known is None else DONE
    if known is None:
        raise not_found()
    if call.method == "DELETE":
        call.broker.delete_policy(vhost, name)
        return DONE
    return views.policy(known)
