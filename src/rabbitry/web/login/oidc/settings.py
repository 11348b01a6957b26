"""The settings of an OpenID Connect provider, from the environment and `.env`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rabbitry._words import reason
from rabbitry.exceptions import UsageError
from rabbitry.runtime.addresses import is_loopback

CALLBACK: Final = "oidc-callback"
"""The place to which the provider sends browsers back, relative to the dashboard's root."""
_NEEDED: Final = ("RABBITRY_OIDC_CLIENT_ID", "RABBITRY_OIDC_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider, and what this dashboard is to it.

    Attributes:
        issuer: The provider's URL, exactly as its tokens have it.
        client_id: The dashboard's id with the provider.
        client_secret: The dashboard's secret; empty for a public client, which has PKCE alone.
        address: The URL at which browsers reach the dashboard, with a slash at its end.
        claim: The claim that is the name of an account.
        scopes: The scopes to ask for, with spaces between them.
        title: The provider's name on the page for signing in.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    address: str
    claim: str = "preferred_username"
    scopes: str = "openid profile email"
    title: str = "single sign-on"

    @property
    def redirect_uri(self) -> str:
        """The URL to which the provider sends browsers back, as it must be registered there."""
        return f"{self.address}{CALLBACK}"


def provider_of(found: Mapping[str, str]) -> Provider | None:
    """Return the provider in our variables; None if RABBITRY_OIDC_ISSUER is not set.

    Args:
        found: The variables, as `rabbitry.apps.settings.variables` returns them.

    Raises:
        UsageError: A variable is missing or invalid. The text names it, and shows no secret.
    """
    issuer = found.get("RABBITRY_OIDC_ISSUER")
    if issuer is None:
        return None
    for name in _NEEDED:
        if name not in found:
            raise UsageError(f"missing {name}: RABBITRY_OIDC_ISSUER names a provider, which needs it")
    _check_url("RABBITRY_OIDC_ISSUER", issuer)
    address = found["RABBITRY_OIDC_URL"]
    _check_url("RABBITRY_OIDC_URL", address)
    scopes = found.get("RABBITRY_OIDC_SCOPES", "openid profile email")
    if "openid" not in scopes.split():
        raise UsageError("RABBITRY_OIDC_SCOPES lacks 'openid', without which a provider sends no identity")
    return Provider(
        issuer=issuer,
        client_id=found["RABBITRY_OIDC_CLIENT_ID"],
        client_secret=_secret(found),
        address=address if address.endswith("/") else f"{address}/",
        claim=found.get("RABBITRY_OIDC_CLAIM", "preferred_username"),
        scopes=scopes,
        title=found.get("RABBITRY_OIDC_TITLE", "single sign-on"),
    )


def is_safe(url: str) -> bool:
    """Return whether a URL can carry secrets: HTTPS, or HTTP within this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(str(host))))


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url) if is_safe(url) else None
    if parts is None or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"{name} is not the URL that it must be: write https://HOST/PATH (http only on this machine)")


def _secret(found: Mapping[str, str]) -> str:
    named = found.get("RABBITRY_OIDC_CLIENT_SECRET_FILE")
    if named is None:
        return found.get("RABBITRY_OIDC_CLIENT_SECRET", "")
    try:
        lines = Path(named).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"RABBITRY_OIDC_CLIENT_SECRET_FILE: {named} can't be read: {why}") from error
    if not lines or not lines[0].strip():
        raise UsageError(f"RABBITRY_OIDC_CLIENT_SECRET_FILE: the first line of {named} is empty")
    return lines[0].strip()
