"""Routes for pages: JSON answers, errors as JSON with a readable text, and a bound on the size of a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rabbitry._ids import NoSuchID
from rabbitry.apps.exceptions import Forbidden, RecordsError
from rabbitry.exceptions import Closed, ConnectFailed, PublishError, RequestTimeout, UsageError
from rabbitry.flow.exceptions import Reject

SCHEMAS: Final = "#/components/schemas/{name}"
"""A reference to a schema in an OpenAPI document."""
_ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "A text for people."}},
    "required": ["error"],
}
_logger = logging.getLogger(__name__)


def route_class(largest: int | Callable[[], Awaitable[int]] = 0) -> type[APIRoute]:
    """Return the class of routes that answer errors as JSON, which the page shows.

    The length of a request is checked before its body is read, because the form parser would write the whole body to
    disk.

    Args:
        largest: The most bytes that the body of a POST may have, or a function that returns the number.
    """

    class Told(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def told(request: Request) -> Response:
                try:
                    if request.method == "POST":
                        _check_length(request, largest if isinstance(largest, int) else await largest())
                    answered: Response = await handle(request)
                except NoSuchID as error:
                    return JSONResponse({"error": str(error)}, 404)
                except Forbidden as error:
                    return JSONResponse({"error": str(error)}, 403)
                except (UsageError, Reject) as error:
                    return JSONResponse({"error": str(error)}, 400)
                except RequestValidationError as error:
                    wrong = ", ".join(sorted({str(each["loc"][-1]) for each in error.errors()}))
                    return JSONResponse({"error": f"missing, or not as the form sends it: {wrong}"}, 400)
                except HTTPException as error:  # raised by the form parser
                    return JSONResponse({"error": error.detail}, error.status_code)
                except (ConnectFailed, PublishError, RecordsError, Closed, RequestTimeout) as error:
                    _logger.warning("%s %s: %s", request.method, request.url.path, error)
                    return JSONResponse({"error": str(error)}, 503)
                return answered

            return told

    return Told


def json_response(data: object) -> Response:
    """Return data as JSON."""
    return Response(msgspec.json.encode(data), media_type="application/json")


def answers(*types: Any) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route, for its description in the OpenAPI document.

    Schemas of types that others refer to are under `$defs`; `/api/openapi.json` moves them to its components.

    Args:
        types: The types of the route's JSON answers: msgspec structs, typed dictionaries, lists and so on. Each answer
            has one of these.

    Returns:
        An answer 200 with these types, and as the default one an object with an `error` text.
    """
    shapes, named = msgspec.json.schema_components(types, ref_template=SCHEMAS)
    schema = {**(shapes[0] if len(shapes) == 1 else {"anyOf": [*shapes]}), "$defs": named}
    return {
        200: {"description": "Done", "content": {"application/json": {"schema": schema}}},
        "default": {
            "description": "Refused, or not possible now",
            "content": {"application/json": {"schema": _ERROR}},
        },
    }


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "")
    # If both headers are there, the body is chunked, and Content-Length does not count (RFC 9112, 6.3).
    if not (length.isascii() and length.isdigit() and len(length) <= 18) or "transfer-encoding" in request.headers:
        raise UsageError("the request has no Content-Length: send one")
    if int(length) > limit:
        raise UsageError(f"the request is too large: more than {limit} bytes")
