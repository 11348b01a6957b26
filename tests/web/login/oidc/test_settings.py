"""The settings of an OpenID Connect provider."""

from pathlib import Path

import pytest

from rabbitry.exceptions import UsageError
from rabbitry.web.login.oidc.settings import provider_of

_RIGHT = {
    "RABBITRY_OIDC_ISSUER": "https://id.example.org/realms/uni",
    "RABBITRY_OIDC_CLIENT_ID": "rabbitry",
    "RABBITRY_OIDC_URL": "https://course.example.org/board",
}


def test_the_secret_comes_from_a_file_or_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    assert provider_of({}) is None
    (tmp_path / "secret").write_text("from the file\n")
    named = {"RABBITRY_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret")}
    for found, secret in ((named, "from the file"), ({"RABBITRY_OIDC_CLIENT_SECRET": "given"}, "given"), ({}, "")):
        provider = provider_of(_RIGHT | found)
        assert provider is not None
        assert provider.client_secret == secret
        assert provider.redirect_uri == "https://course.example.org/board/oidc-callback"
        assert not secret or secret not in repr(provider)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RABBITRY_OIDC_CLIENT_ID", None),
        ("RABBITRY_OIDC_URL", None),
        ("RABBITRY_OIDC_URL", "course.example.org"),
        ("RABBITRY_OIDC_URL", "https://course.example.org/?a=b"),
        ("RABBITRY_OIDC_ISSUER", "http://id.example.org/"),
        ("RABBITRY_OIDC_ISSUER", "https://user@id.example.org/"),
        ("RABBITRY_OIDC_ISSUER", "https://[id"),
        ("RABBITRY_OIDC_SCOPES", "profile"),
        ("RABBITRY_OIDC_CLIENT_SECRET_FILE", "/nowhere/secret"),
        ("RABBITRY_OIDC_CLIENT_SECRET_FILE", "/dev/null"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str | None) -> None:
    found = {key: each for key, each in (_RIGHT | {name: value}).items() if each is not None}
    with pytest.raises(UsageError, match=name):
        provider_of(found)
