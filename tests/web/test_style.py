"""Text can be read: WCAG 2.1, 1.4.3 (contrast, level AA) for the colours of both schemes."""

import re
from pathlib import Path

import pytest

import rabbitry.web
from rabbitry.web import _shell

_STATIC = Path(rabbitry.web.__file__).parent / "static"
_STYLE = (_STATIC / "style.css").read_text()
_LIGHT, _DARK = (
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block))
    for block in re.findall(r":root(?:\[data-theme=\"dark\"\])? \{(.*?)\}", _STYLE, re.DOTALL)
)
PAIRS = [
    *((text, ground) for text in ("ink", "muted", "accent", "good", "busy", "bad") for ground in ("ground", "card")),
    ("ink", "raised"), ("muted", "raised"), ("on-accent", "accent"), ("card", "accent"),
    ("busy", "warn-ground"), ("ink", "warn-ground"), ("bad", "bad-ground"), ("ink", "bad-ground"),
    ("muted", "bad-ground"),
]  # fmt: skip


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("text", "ground"), PAIRS)
@pytest.mark.parametrize("colours", [_LIGHT, _DARK], ids=["light", "dark"])
def test_text_has_enough_contrast(colours: dict[str, str], text: str, ground: str) -> None:
    lighter, darker = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_page_links_each_style_sheet_of_all_pages() -> None:
    head = "".join(_shell._head("A title", "", "../"))
    assert set(re.findall(r"\.\./static/([a-z]+\.css)", head)) == {path.name for path in _STATIC.glob("*.css")}
