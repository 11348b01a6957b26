"""The broker as a whole: overview, nodes, health, definitions."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse

from rabbitry.broker._management import definitions, importing, messages, views
from rabbitry.broker._management.call import DONE, Answer, Call, bad, not_found, number, route
from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.listing import streamed
from rabbitry.broker._management.rates import vhost_totals
from rabbitry.broker._product import node_name
from rabbitry.runtime.resources import memory_in_use


@route("/api/overview")
async def _overview(call: Call) -> object:
    ranges = call.ranges
    async with call.pace as pace:
        totals = await vhost_totals(call.broker, pace)
    return views.overview(call.broker, call.rates, totals, ranges)


@route("/api/whoami")
def _whoami(call: Call) -> object:
    return {"name": call.user.name, "tags": list(call.user.tags)}


@route("/api/extensions")
def _nothing(call: Call) -> object:
    return []


@route("/api/feature-flags")
def _feature_flags(call: Call) -> object:
    flags = call.broker.config.release.feature_flags
    fixed = {"desc": "", "doc_url": "", "state": "enabled", "provided_by": "rabbit"}
    return [{"name": name, **fixed, "stability": stability} for name, stability in flags.items()]


@route("/api/deprecated-features")
def _deprecated_features(call: Call) -> object:
    phases = call.broker.config.release.deprecated_features
    if not phases:
        raise not_found()  # the release has no such path
    fixed = {"desc": "", "doc_url": "", "provided_by": "rabbit"}
    return [{"name": name, "deprecation_phase": phase, **fixed} for name, phase in phases.items()]


@route("/api/nodes")
def _nodes(call: Call) -> object:
    return [views.node(call.broker)]


@route("/api/nodes/{name}")
def _node(call: Call) -> object:
    if call.path("name") != node_name():
        raise not_found()
    return views.node(call.broker)


_RESOURCES: Final = {"disk": "disk space", "memory": "memory"}


@route("/api/nodes/{name}/memory")
def _memory(call: Call) -> object:
    if call.path("name") != node_name():
        raise not_found()
    used = memory_in_use()
    return {"memory": {"strategy": "rss", "total": {"rss": used, "allocated": used, "erlang": 0}}}


@route("/api/health/checks/certificate-expiration/{within}/{unit}")
def _certificates(call: Call) -> object:
    if call.path("unit") not in ("days", "weeks", "months", "years"):
        raise bad("Time unit not recognised. Supported units: days, weeks, months, years.")
    number(call.path("within"), "Invalid expiration value.")
    if call.broker.has_tls:
        raise bad("this broker does not check the dates of its certificates")
    return {"status": "ok"}


@route("/api/health/checks/alarms")
def _alarms(call: Call) -> object:
    return _no_alarms(call, "There are alarms in effect in the cluster")


@route("/api/health/checks/local-alarms")
def _local_alarms(call: Call) -> object:
    return _no_alarms(call, "There are alarms in effect on the node")


def _no_alarms(call: Call, otherwise: str) -> object:
    alarms = [{"node": node_name(), "resource": _RESOURCES[what]} for what in sorted(call.broker.alarms.on)]
    if not alarms:
        return {"status": "ok"}
    body: Json = {"status": "failed", "reason": otherwise, "alarms": alarms}
    return JSONResponse(body, 503)


@route("/api/health/checks/virtual-hosts")
@route("/api/health/checks/node-is-mirror-sync-critical")
def _fine(call: Call) -> object:
    return {"status": "ok"}


@route("/api/healthchecks/node")
@route("/api/healthchecks/node/{name}")
def _is_healthy(call: Call) -> object:
    if call.request.path_params.get("name", node_name()) != node_name():
        raise not_found()
    alarms = [f"{{resource_limit,{what},'{node_name()}'}}" for what in sorted(call.broker.alarms.on)]
    if not alarms:
        return {"status": "ok"}
    body: Json = {"status": "failed", "reason": f"resource alarm(s) in effect:[{','.join(alarms)}]"}
    return JSONResponse(body, 503)


@route("/api/health/checks/node-is-quorum-critical")
def _quorum(call: Call) -> object:
    return {"status": "ok", "reason": "single node cluster"}


@route("/api/health/checks/port-listener/{port}")
def _port_listener(call: Call) -> object:
    port = number(call.path("port"), "Invalid port")
    ports = [item["port"] for item in views.listeners(call.broker)]
    if port not in ports:
        body: Json = {"status": "failed", "reason": "No active listener", "missing": port, "ports": ports}
        return JSONResponse(body, 503)
    return {"status": "ok", "port": port}


@route("/api/health/checks/protocol-listener/{protocol}")
def _protocol_listener(call: Call) -> object:
    protocol = call.path("protocol")
    protocols = [item["protocol"] for item in views.listeners(call.broker)]
    if protocol.removesuffix("091").removesuffix("0-9-1") not in protocols:
        body: Json = {
            "status": "failed",
            "reason": "No active listener",
            "missing": protocol,
            "protocols": protocols,
        }
        return JSONResponse(body, 503)
    return {"status": "ok", "protocol": protocol}


@route("/api/aliveness-test/{vhost}")
async def _aliveness(call: Call) -> object:
    await messages.aliveness(call.vhost(), call.pace)
    return {"status": "ok"}


@route("/api/definitions", "GET", "POST")
@route("/api/definitions/{vhost}", "GET", "POST")
async def _definitions(call: Call) -> object:
    call.administrator()
    only = None
    if "vhost" in call.request.path_params:
        only = call.broker.vhosts.get(call.path("vhost"))
        if only is None:
            raise Answer(404, "not_found", "vhost_not_found") if call.method == "POST" else bad("vhost_not_found")
    if call.method == "GET":
        return streamed(await definitions.export(call.broker, call.pace, only))
    await importing.load(call.broker, await call.document(), call.pace, only)
    return DONE
