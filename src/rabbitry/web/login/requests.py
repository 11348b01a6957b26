"""The requests of routes that read their bodies themselves, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

import msgspec

from rabbitry.apps.api import SCHEMAS
from rabbitry.web.login.sessions import TOKEN_HEADER


def body_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a request that changes something, for `openapi_extra`. With Basic it needs no token."""
    token = {"name": TOKEN_HEADER, "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _schema(type_)}}},
        "parameters": [token],
    }


def query_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the parameters of a query, for `openapi_extra`."""
    schema = _schema(type_)
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": each}
            for name, each in schema["properties"].items()
        ]
    }


def _schema(type_: type[msgspec.Struct]) -> dict[str, Any]:
    _, named = msgspec.json.schema_components([type_], ref_template=SCHEMAS)
    schema: dict[str, Any] = named[type_.__name__]
    return schema
