"""A page of a browser, with what its console complained of."""

from dataclasses import dataclass, field

from playwright.async_api import ConsoleMessage, Page


@dataclass
class Watched:
    """A page, and what its console complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        """Keep a message of the console that is an error or a warning."""
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)
