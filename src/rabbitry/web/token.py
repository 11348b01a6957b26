"""The token that the dashboard's pages send with each request that changes something, beside Host and Origin."""

from __future__ import annotations

import secrets
from typing import Final

from starlette.requests import Request

from rabbitry.exceptions import UsageError

HEADER: Final = "X-Rabbitry-Token"


class Token:
    """A token that only the dashboard's own pages can read, as long as this process lives."""

    def __init__(self) -> None:
        self.text: str = secrets.token_urlsafe(32)

    def check(self, request: Request) -> None:
        """Raise UsageError unless a request has the token."""
        if not secrets.compare_digest(request.headers.get(HEADER, "").encode(), self.text.encode()):
            raise UsageError(f"the request has not the token of this dashboard's pages ({HEADER}): load the page again")
