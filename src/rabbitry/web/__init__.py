"""The dashboard: HTTP and WebSocket API, and one page.

`uvicorn rabbitry.web:app` serves it, with the settings of the environment and of `.env`. All else is for Rabbitry
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI

__all__ = ["app"]


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> FastAPI:
        # Made when it is asked for: only then are the environment and .env read.
        if name != "app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rabbitry.apps import Site
        from rabbitry.apps.settings import from_environment, variables
        from rabbitry.apps.users_file import chosen_file, has_users
        from rabbitry.web.login.gate import Access
        from rabbitry.web.login.oidc.settings import provider_of
        from rabbitry.web.server import PORT, create_app, mounts, open_history

        found = variables()
        users = chosen_file(found.get("RABBITRY_WEB_USERS"))
        provider = provider_of(found)
        settings = from_environment(found, default_port=PORT, has_login=has_users(users) or provider is not None)
        history = open_history(settings.broker)
        mounted = mounts(Site(broker=settings.broker, variables=found), history=history)
        access = Access(password=settings.password, users=users, provider=provider)
        made = create_app(settings, mounted, found.get("RABBITRY_MANAGEMENT"), history, access)
        globals()["app"] = made
        return made
