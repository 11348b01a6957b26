"""A page of a browser, with what it complained of."""

from collections.abc import Sequence

from playwright.async_api import Locator, Page

# The browser itself reports a WebSocket that finds no server; the page reports it in its own words.
SERVER_AWAY = ("WebSocket connection to", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE")


class Watched:
    """A page, and what it complained of: errors and warnings of its console, uncaught errors, dialogs.

    Messages of the console that contain a text of `expected` are no complaints.
    """

    def __init__(self, page: Page, expected: Sequence[str] = SERVER_AWAY) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._expected = expected
        page.set_default_timeout(90_000)  # Playwright's own 30 seconds pass on a busy machine
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(one in text for one in self._expected):
            self.complaints.append(text)

    async def go(self, place: str) -> Locator:
        """Follow a link of the page; return its panel."""
        await self.page.locator(f".places a[href='#/{place}']").click()
        return self.page.locator(".panel")
