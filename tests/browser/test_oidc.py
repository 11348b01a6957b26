"""Signing in through an OpenID Connect provider in a browser: the way there and back, and each refusal in words."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.oidc_provider import RunningProvider
from tests.support.ports import free_port
from tests.support.waiting import eventually_awaited
from tests.web.login.dashboards import users_file

pytestmark = pytest.mark.timeout(300)


async def _fits(page: Page) -> None:
    """Check that a page is accessible, and needs no scrolling sideways, in both themes."""
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        assert await serious(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_people_sign_in_and_out_and_are_refused_in_words(
    browser: Browser, embedded_url: str, tmp_path: Path, provider: RunningProvider
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    provider.redirect_uri, provider.person = f"{url}oidc-callback", {"sub": "5", "preferred_username": "vera"}
    more = {
        "RABBITRY_BROKER": embedded_url,
        "RABBITRY_WEB_USERS": str(users_file(tmp_path)),
        "RABBITRY_OIDC_TITLE": "the university of a town whose name is long",
        **provider.settings(),
    }
    with commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("dashboard on")
        page = await browser.new_page(viewport={"width": 320, "height": 700})
        watched = Watched(page, expected=["403 (F", "502 (B", "WebSocket connection to"])
        told = page.locator("main p").first
        await page.goto(f"{url}audit/")
        link = page.get_by_role("link", name="Sign in with the university of a town")
        await expect(link).to_be_visible()
        await _fits(page)

        provider.raw = {"/.well-known/openid-configuration": (b"", {})}
        await link.press("Enter")
        await expect(told).to_contain_text("can't be reached, or does not answer as it should: try again later.")
        await expect(told).to_contain_text("Names and passwords of this dashboard go on working.")
        await _fits(page)
        provider.raw = {}

        async def again() -> bool:
            await page.goto(f"{url}login/?to=audit/")
            await link.click()
            await page.wait_for_url(lambda there: "/login/" not in there)
            return await page.get_by_role("heading", name="You are not signed in").count() == 0

        await eventually_awaited(again, "the provider is asked again")
        await page.wait_for_url(f"{url}audit/")
        await page.get_by_role("button", name="Menu").click()
        await expect(page.locator(".who")).to_contain_text("vera, viewer")
        await page.get_by_role("button", name="Sign out").press("Enter")
        await page.wait_for_url(f"{provider.issuer}/leave?client_id=rabbitry")
        await page.goto(f"{url}audit/")

        provider.person = {"sub": "6", "preferred_username": "<b>eve</b>"}
        await link.press("Enter")
        await expect(told).to_contain_text("knows you as “<b>eve</b>”, and nobody of that name has an account here.")
        await _fits(page)
        provider.person = {"sub": "5", "preferred_username": "vera"}
        await page.get_by_role("link", name="Sign in again").press("Enter")
        await link.press("Enter")
        await expect(page.locator(".who")).to_contain_text("vera, viewer")
        assert watched.complaints == []
