"""A headless Chromium for the tests of pages.

All of them run in one event loop, that of the session, because Playwright's objects belong to the loop that made them.
An asynchronous fixture of theirs is therefore a `pytest_asyncio.fixture(loop_scope="session")`.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.support import programs
from tests.support.oidc_provider import RunningProvider, running_provider

_FOLDER = Path(__file__).parent
# Playwright's own 5 seconds pass on a busy machine.
expect.set_options(timeout=90_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _chromium() -> AsyncIterator[Browser]:
    """The Chromium that all tests of pages share, started by the first of them: a second of CPU."""
    programs.require(programs.why_no_chromium())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(programs.CHROMIUM), args=programs.CHROMIUM_FLAGS, timeout=90_000
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(_chromium: Browser) -> AsyncIterator[Browser]:
    """The system's Chromium, for `new_page`; a page shares nothing with another, and is closed after the test."""
    yield _chromium
    for context in _chromium.contexts:
        await context.close()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningProvider]:
    """An OpenID Connect provider on this machine."""
    with running_provider(monkeypatch) as running:
        yield running
