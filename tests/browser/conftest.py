"""A headless Chromium for the tests of pages."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from tests.support.programs import CHROMIUM_FLAGS


@pytest.fixture
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    """The system's Chromium, started for this test."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(chromium), args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()
