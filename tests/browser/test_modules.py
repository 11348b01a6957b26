"""The scripts of all pages in a real browser: each can be parsed. tests/web/test_modules.py checks their imports."""

from pathlib import Path

from playwright.async_api import Browser

import rabbitry

_PARSED = """async (sources) => {
  const found = [];
  for (const [place, text] of Object.entries(sources)) {
    // A module is parsed first. The import that is added to it can't be resolved; therefore nothing of it runs.
    const module = `${text}\nimport "./nothing.js";`;
    try {
      await import(`data:text/javascript;charset=utf-8,${encodeURIComponent(module)}`);
      found.push(`${place}: it ran`);
    } catch (error) {
      if (error instanceof SyntaxError) found.push(`${place}: ${error.message}`);
    }
  }
  return found;
}"""


async def test_no_script_has_a_syntax_error(browser: Browser) -> None:
    folder = Path(rabbitry.__file__).parent
    sources = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*js")}
    assert {"web/static/html.js", "apps/grading/static/grading.js"} <= sources.keys()
    wrong = {
        "twice": 'import { a } from "./b.js";\nimport { a } from "./c.js";',
        "open": "export const a = [1, 2;",
    }
    page = await browser.new_page()
    found: list[str] = await page.evaluate(_PARSED, sources | wrong)
    assert [place.partition(":")[0] for place in found] == [*wrong], found
