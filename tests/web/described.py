"""Checks the answers of a dashboard against its OpenAPI document."""

import re
from typing import Any

import httpx
import jsonschema_rs


class Described:
    """A hook of an `httpx.AsyncClient` that checks each JSON answer, and remembers the paths in `seen`.

    Args:
        document: The OpenAPI document.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.seen: set[tuple[str, str]] = set()

    async def check(self, response: httpx.Response) -> None:
        """Check an answer of a route that the document describes."""
        for path, operations in self._document["paths"].items():
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
            operation = operations.get(response.request.method.lower())
            if operation is None or not re.fullmatch(pattern, response.request.url.path):
                continue
            answers = operation["responses"]
            answer = answers.get(str(response.status_code), answers.get("default", {}))
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            if schema is not None and response.headers.get("content-type", "").startswith("application/json"):
                await response.aread()
                whole = {**schema, "components": self._document["components"]}
                jsonschema_rs.Draft202012Validator(whole).validate(response.json())
                self.seen.add((response.request.method, path))
