"""OpenAPI descriptions of requests, for routes that decode queries and bodies themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from rabbitry.apps.api import SCHEMAS
from rabbitry.web.login.sessions import TOKEN_HEADER


def body_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that changes something: its body, and the header with the page's token.

    Requests with a name and password in the header Authorization need no token.

    Args:
        type_: The type of the body.
    """
    token = {"name": TOKEN_HEADER, "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _schema(type_)}}},
        "parameters": [token],
    }


def query_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route with a query.

    Args:
        type_: The type of the query, a member for each parameter.
    """
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
