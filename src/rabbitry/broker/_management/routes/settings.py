"""Parameters: those of the broker, those of virtual hosts, and settings that are not available here."""

from __future__ import annotations

from rabbitry.broker._management import definitions, importing, views
from rabbitry.broker._management.call import CREATED, DONE, Call, bad, need_keys, not_found, route
from rabbitry.broker._policies import OPERATOR_POLICY


@route("/api/cluster-name", "GET", "PUT")
def _cluster_name(call: Call) -> object:
    if call.method == "GET":
        return {"name": call.broker.parameters.cluster_name}
    call.administrator()
    body = call.body()
    need_keys(body, "name")
    call.broker.parameters.put("cluster_name", definitions.short(body, "name"))
    return DONE


@route("/api/global-parameters")
def _global_parameters(call: Call) -> object:
    call.policymaker()
    return views.global_parameters(call.broker)


@route("/api/global-parameters/{name}", "GET", "PUT", "DELETE")
def _global_parameter(call: Call) -> object:
    call.administrator()
    name = call.path("name")
    known = {item["name"]: item for item in views.global_parameters(call.broker)}
    if call.method == "PUT":
        body = call.body()
        need_keys(body, "value")
        if body["value"] is None:
            raise bad("the value of a global parameter must not be null")
        call.broker.parameters.put(name, body["value"])
        return DONE if name in known else CREATED
    if name not in known:
        raise not_found()
    if call.method == "DELETE":
        call.broker.parameters.put(name, None)
        return DONE
    return known[name]


@route("/api/parameters")
@route("/api/parameters/{component}")
@route("/api/parameters/{component}/{vhost}")
def _parameters(call: Call) -> object:
    call.policymaker()
    component = call.request.path_params.get("component")
    found = [item for vhost in call.vhosts() for item in views.parameters(call.broker, vhost)]
    return [item for item in found if component in (None, item["component"])]


@route("/api/parameters/{component}/{vhost}/{name}", "GET", "PUT", "DELETE")
async def _parameter(call: Call) -> object:
    call.policymaker()
    vhost, component, name = call.vhost(), call.path("component"), call.path("name")
    known = [
        item for item in views.parameters(call.broker, vhost) if (item["component"], item["name"]) == (component, name)
    ]
    if call.method == "PUT":
        body = call.body()
        need_keys(body, "value")
        vhost.limits = importing.parameter(component, name, body["value"])
        vhost.store()
        return DONE if known else CREATED
    if not known:
        raise not_found()
    if call.method == "DELETE" and component == OPERATOR_POLICY:
        broker = call.broker
        return await call.carry_out(broker.deleting_policy(vhost.name, name, broker.operator_policies))
    if call.method == "DELETE":
        vhost.limits = {}
        vhost.store()
        return DONE
    return known[0]


# -- not available here ------------------------------------------------------------------------------------


@route("/api/feature-flags/{name}/enable", "PUT")
def _feature_flag(call: Call) -> object:
    call.administrator()
    raise bad("unsupported")


@route("/api/rebalance/queues", "POST")
def _rebalance(call: Call) -> object:
    call.administrator()
    return DONE  # there is one node


@route("/api/auth")
def _auth(call: Call) -> object:
    return {"enable_uaa": False, "uaa_client_id": "", "uaa_location": ""}
