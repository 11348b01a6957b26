"""Answers to requests for what is not there or not allowed: a page for a browser that opens it, JSON for all others."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from rabbitry.apps.exceptions import Forbidden
from rabbitry.web._shell import notice_page

_API: Final = "api"
"""The part of a path below which programs ask: a browser that opens such an address sees what they get."""


def add_refusals(app: FastAPI) -> None:
    """Answer requests for unknown addresses, and those that the user's role does not allow."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Forbidden, _on_forbidden)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 # it is added for these; narrows the type
    if error.status_code != 404:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return _refused(request, 404, "Nothing is here", "this dashboard has no such address")


async def _on_forbidden(request: Request, error: Exception) -> Response:
    return _refused(request, 403, "Not allowed", str(error))


def _refused(request: HTTPConnection, status: int, title: str, why: str) -> Response:
    scope = request.scope
    # Not `request.url.path`: a proxy may have removed a prefix that only the browser knows.
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    # A WebSocket has no method; its refusal is an answer to its handshake.
    is_opened = scope.get("method") == "GET" and "text/html" in request.headers.get("accept", "")
    if not is_opened or _API in path.split("/"):
        return JSONResponse({"error": why}, status)
    text = f"{why[0].upper()}{why[1:]}."
    root = "../" * (path.count("/") - 1) or "./"
    return HTMLResponse(notice_page(title, text, "", "To the first page", root=root), status)
