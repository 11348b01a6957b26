"""Virtual hosts, users, permissions and policies."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping

from starlette.responses import Response

from rabbitry.broker._management import accounts, definitions, views
from rabbitry.broker._management.call import CREATED, DONE, Answer, Call, bad, need_keys, not_found, route
from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.listing import Listed, answer
from rabbitry.broker._management.rates import vhost_totals
from rabbitry.broker._policies import Policies
from rabbitry.broker._product import node_name
from rabbitry.broker._vhost import VHOST_LIMITS, VirtualHost
from rabbitry.broker.access import USER_LIMITS, Permission, TopicPermission
from rabbitry.exceptions import UsageError


@route("/api/vhosts")
def _vhosts(call: Call) -> object:
    return _list_vhosts(call)


async def _list_vhosts(call: Call) -> Response:
    ranges = call.ranges
    if call.disables_stats:
        return await answer(call, Listed(call.vhosts(), views.vhost, order=("name",), has_pages=True))
    async with call.pace as pace:
        totals = await vhost_totals(call.broker, pace)

    def view(item: VirtualHost) -> Json:
        return views.vhost_with_stats(item, call.rates, totals[item], ranges)

    found = [item for item in call.vhosts() if item in totals]
    return await answer(call, Listed(found, view, order=("name",), has_pages=True))


@route("/api/vhosts/{vhost}", "GET", "PUT", "DELETE")
def _vhost(call: Call) -> object:
    if call.method == "PUT":
        call.administrator()
        return _put_vhost(call, call.path("vhost"), call.body())
    if call.method == "DELETE":
        call.administrator()
        return call.carry_out(call.broker.deleting_vhost(call.vhost().name))
    return _show_vhost(call)


async def _put_vhost(call: Call, name: str, body: Json) -> object:
    broker = call.broker
    description, tags = body.get("description") or "", accounts.read_tags(body)
    if not isinstance(description, str):
        raise bad("the description must be a string")
    if body.get("default_queue_type") not in (None, "", "classic", "undefined"):
        raise bad("default_queue_type is not available in this broker: name x-queue-type in a queue's arguments")
    await call.carry_out(broker.rest_of_deletion(name))
    is_new = name not in broker.vhosts
    broker.add_vhost(name)
    vhost = broker.vhosts[name]
    if "description" in body or "tags" in body:
        vhost.description, vhost.tags = description, tuple(tags)
        vhost.store()
    if "tracing" in body:
        vhost.trace(is_on=body["tracing"] in (True, "true"))
    if is_new:
        broker.access.put_permission(name, call.user.name, Permission())
    return CREATED if is_new else DONE


@route("/api/vhosts/{vhost}/start/{node}", "POST")
def _start_vhost(call: Call) -> object:
    call.administrator()
    call.vhost()
    if call.path("node") != node_name():
        raise bad(f"Request to node {call.path('node')} failed with nodedown")
    return DONE  # it is running


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
async def _delete_users(call: Call) -> object:
    call.administrator()
    names = call.body().get("users")
    if not isinstance(names, list):
        raise bad("[{key_missing,users}]")
    return await call.carry_out(_deleting_users(call, names))


def _deleting_users(call: Call, names: list[object]) -> Iterator[None]:
    """Delete users in steps. Raises Answer at an unknown user."""
    for name in names:
        if not isinstance(name, str) or name not in call.broker.access.users:
            raise Answer(400, "bad_request", ["no_such_user", name])
        yield from call.broker.deleting_user(name)
        yield


@route("/api/users/{name}", "GET", "PUT", "DELETE")
def _user(call: Call) -> object:
    call.administrator()
    name, access = call.path("name"), call.broker.access
    if call.method == "PUT":
        is_new = name not in access.users
        body = call.body()
        if body.get("tags") is None:
            raise bad("tags_not_present")
        account, limits = accounts.read(body), definitions.limits(body.get("limits", {}), USER_LIMITS, "user-limits")
        access.put_user(name, *account)
        if limits:
            access.put_limits(name, {**access.users[name].limits, **limits})
        return CREATED if is_new else DONE
    if name not in access.users:
        raise not_found()
    if call.method == "DELETE":
        return call.carry_out(call.broker.deleting_user(name))
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
            raise bad("permissions must be regular expressions")
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


# -- topic permissions -------------------------------------------------------------------------------------


def _list_topic_permissions(call: Call, place: int | None = None, name: str = "") -> Awaitable[Response]:
    found = [
        (*where, item)
        for where, item in call.broker.access.topic_permissions.items()
        if place is None or where[place] == name
    ]
    order = ("vhost", "user", "exchange")
    return answer(call, Listed(found, lambda item: views.topic_permission(*item), order=order))


@route("/api/topic-permissions")
def _topic_permissions(call: Call) -> object:
    call.administrator()
    return _list_topic_permissions(call)


@route("/api/vhosts/{vhost}/topic-permissions")
def _vhost_topic_permissions(call: Call) -> object:
    call.administrator()
    return _list_topic_permissions(call, 0, call.vhost().name)


@route("/api/users/{name}/topic-permissions")
def _user_topic_permissions(call: Call) -> object:
    call.administrator()
    if call.path("name") not in call.broker.access.users:
        raise not_found()
    return _list_topic_permissions(call, 1, call.path("name"))


@route("/api/topic-permissions/{vhost}/{user}", "GET", "PUT", "DELETE")
@route("/api/topic-permissions/{vhost}/{user}/{exchange}", "DELETE")
def _topic_permission(call: Call) -> object:
    call.administrator()
    access, vhost, user = call.broker.access, call.path("vhost"), call.path("user")
    if vhost not in call.broker.vhosts or user not in access.users:
        raise bad("vhost_or_user_not_found") if call.method == "PUT" else not_found()
    known = {place: item for place, item in access.topic_permissions.items() if place[:2] == (vhost, user)}
    if call.method == "PUT":
        body = call.body()
        need_keys(body, "exchange", "write", "read")
        permission = TopicPermission(definitions.text(body, "write"), definitions.text(body, "read"))
        try:
            access.put_topic_permission(vhost, user, definitions.short(body, "exchange"), permission)
        except UsageError as error:
            raise bad(f"invalid regular expression: {error}") from error
        return DONE if known else CREATED
    if not known:
        raise not_found()
    if call.method == "DELETE":
        only = call.path("exchange") if "exchange" in call.request.path_params else None
        for place in known:
            if only in (None, place[2]):
                access.delete_topic_permission(*place)
        return DONE
    return [views.topic_permission(*place, item) for place, item in known.items()]


# -- limits ------------------------------------------------------------------------------------------------


@route("/api/user-limits")
@route("/api/user-limits/{user}")
def _user_limits(call: Call) -> object:
    users = call.broker.access.users
    name = call.path("user") if "user" in call.request.path_params else None
    if name is not None and name not in users:
        raise not_found()
    found = [user for user in users.values() if user.limits and name in (None, user.name)]
    return [{"user": user.name, "value": dict(user.limits)} for user in sorted(found)]


@route("/api/user-limits/{user}/{limit}", "PUT", "DELETE")
def _user_limit(call: Call) -> object:
    call.administrator()
    name, limit, access = call.path("user"), call.path("limit"), call.broker.access
    if name not in access.users:
        raise bad(["no_such_user", name])
    access.put_limits(name, _changed(call, access.users[name].limits, limit, USER_LIMITS, "user-limits"))
    return DONE


def _changed(call: Call, known: Mapping[str, int], name: str, names: tuple[str, ...], what: str) -> dict[str, int]:
    """Return limits after the request's change of one. Raises Answer or BadDefinition."""
    if call.method == "DELETE":
        return {other: limit for other, limit in known.items() if other != name}
    body = call.body()
    need_keys(body, "value")
    return {**known, **definitions.limits({name: body["value"]}, names, what)}


@route("/api/vhost-limits")
@route("/api/vhost-limits/{vhost}")
def _vhost_limits(call: Call) -> object:
    return [{"vhost": vhost.name, "value": dict(vhost.limits)} for vhost in call.vhosts() if vhost.limits]


@route("/api/vhost-limits/{vhost}/{limit}", "PUT", "DELETE")
def _vhost_limit(call: Call) -> object:
    call.policymaker()
    vhost = call.vhost()
    try:
        vhost.limits = _changed(call, vhost.limits, call.path("limit"), VHOST_LIMITS, "limits")
    except definitions.BadDefinition as error:
        raise bad(f"Validation failed\n\n{error}\n") from error
    vhost.store()
    return DONE


# -- policies ----------------------------------------------------------------------------------------------


@route("/api/policies")
@route("/api/policies/{vhost}")
def _policies(call: Call) -> object:
    call.policymaker()
    return _listed(call, call.broker.policies)


@route("/api/operator-policies")
@route("/api/operator-policies/{vhost}")
def _operator_policies(call: Call) -> object:
    call.policymaker()
    return _listed(call, call.broker.operator_policies)


def _listed(call: Call, policies: Policies) -> object:
    names = {vhost.name for vhost in call.vhosts()}
    return answer(call, Listed([policy for policy in policies if policy.vhost in names], views.policy))


@route("/api/policies/{vhost}/{name}", "GET", "PUT", "DELETE")
async def _policy(call: Call) -> object:
    call.policymaker()
    return await _carried_out(call, call.broker.policies)


@route("/api/operator-policies/{vhost}/{name}", "GET", "PUT", "DELETE")
async def _operator_policy(call: Call) -> object:
    call.administrator()
    return await _carried_out(call, call.broker.operator_policies)


async def _carried_out(call: Call, policies: Policies) -> object:
    """Show, set or clear a policy or an operator policy."""
    vhost, name = call.vhost().name, call.path("name")
    known = policies.get(vhost, name)
    if call.method == "PUT":
        body = call.body()
        need_keys(body, "pattern", "definition")
        policy = definitions.policy(vhost, name, body, call.broker.config.release, policies.component)
        await call.carry_out(call.broker.putting_policy(policy, policies))
        return CREATED if known is None else DONE
    if known is None:
        raise not_found()
    if call.method == "DELETE":
        return await call.carry_out(call.broker.deleting_policy(vhost, name, policies))
    return views.policy(known)
