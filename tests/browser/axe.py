"""What axe-core finds on a page, and whether it fits a phone."""

from typing import Final

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

_SCRIPT: Final = Axe().axe_script
_RUN: Final = """async () => {
    const {violations} = await axe.run({resultTypes: ["violations"], preload: false});
    return violations
        .filter(({impact}) => ["serious", "critical"].includes(impact))
        .map(({id, nodes: [{html, failureSummary}]}) => `${id}: ${html.slice(0, 200)} ${failureSummary ?? ""}`);
}"""


async def serious(page: Page) -> list[str]:
    """Return axe's serious and critical findings: the rule, and the first element that breaks it.

    It loads no style sheets and media anew: only the rule for media that play by themselves needs that, which is none
    of the serious ones. A page gets axe once, and tells what breaks a rule: with `Axe.run`, which has it compiled anew
    and brings all that passes, each call took twice the CPU.
    """
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(_SCRIPT)
    found: list[str] = await page.evaluate(_RUN)
    return found


async def fits_a_phone(page: Page) -> None:
    """Check that a page is accessible in both themes, and needs no scrolling sideways at a width of 320."""
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        assert await serious(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
