"""Jupyter notebooks as the page shows them: Markdown, code with colours, and outputs that are text or PNG.

Nothing of a notebook is shown as HTML: Markdown becomes a list of marks that the page draws, and outputs of other types
are only named. A notebook is read in a process with limits.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from rabbitry._decode import decode_json
from rabbitry.apps.grading.colours import pieces_of
from rabbitry.apps.grading.exceptions import LexingFailed
from rabbitry.apps.grading.lexing import Lexing
from rabbitry.exceptions import Undecodable

SUFFIX: Final = ".ipynb"
MOST_CELLS: Final = 500
"""Cells that are shown, and outputs of all of them."""
_MOST_TEXT: Final = 200_000
"""Characters of all cells and outputs that are shown."""
_MOST_LINES: Final = 5_000
"""Lines of all cells and outputs that are shown; the page draws a row for each of a cell."""
_MOST_OUTPUT: Final = 5_000
"""Characters of an output that are shown."""
_MOST_PICTURE: Final = 2_000_000
"""Bytes of a picture."""
_MOST_SIDE: Final = 5_000
"""Pixels of each side of a picture: a browser unpacks all of them."""
_MOST_PICTURES: Final = 20_000_000
"""Bytes of all pictures of a notebook."""
_MOST_PIXELS: Final = 100_000_000
"""Pixels of all pictures of a notebook, of which a browser takes four bytes each."""
_DEEPEST: Final = 50
"""Elements of Markdown inside each other that are shown: the page draws them by recursion."""
_CPU_SECONDS: Final = 5
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TERMINAL: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TAGS: Final = frozenset({
    "h1", "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "em", "strong", "s", "blockquote", "table", "thead",
    "tbody", "tr", "th", "td", "hr",
})  # fmt: skip
_LINKS: Final = ("http://", "https://", "mailto:")

Mark: TypeAlias = tuple[str, str]
"""A part of a text in Markdown: `open` a tag, `link` (open one), `close`, `text`, `code` or `block`, with its text."""


class _Output(msgspec.Struct):
    output_type: str = ""
    text: Any = ""
    data: dict[str, Any] = {}
    ename: str = ""
    evalue: str = ""
    traceback: list[Any] = []


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: Any = ""
    outputs: list[_Output] = []


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def cells_of(data: bytes) -> list[dict[str, Any]] | None:
    """Return the cells of a notebook as the page shows them; None if it can't be read within limits. Blocks."""
    try:
        with Lexing(_CPU_SECONDS) as process:
            return process.run(_cells, data)
    except LexingFailed:
        return None


def picture_of(data: bytes, number: int) -> bytes | None:
    """Return the PNG with a number that `cells_of` gave; None if there is none. Blocks."""
    try:
        with Lexing(_CPU_SECONDS) as process:
            return process.run(_picture, data, number)
    except LexingFailed:
        return None


def _cells(data: bytes) -> list[dict[str, Any]] | None:
    read = _read(data)
    if read is None:
        return None
    room = _Room()
    found = []
    for cell in read[:MOST_CELLS]:
        if room.left <= 0 or room.lines <= 0:
            break
        source = room.take(_text(cell.source), _MOST_TEXT)
        is_code, is_markdown = cell.cell_type == "code", cell.cell_type == "markdown"
        found.append({
            "kind": "code" if is_code else "markdown" if is_markdown else "raw",
            "marks": _marks(source) if is_markdown else [],
            "pieces": pieces_of(source, "a.py") if is_code else [(source, None)],
            "outputs": [_output(one, room) for one in cell.outputs[: room.outputs()]] if is_code else [],
        })  # fmt: skip
    if len(found) < len(read):
        said = f"Only the first {len(found)} of {len(read)} cells are shown."
        found.append({"kind": "markdown", "marks": [("open", "p"), ("text", said), ("close", "")], **_NO_CODE})
    return found


_NO_CODE: Final[dict[str, Any]] = {"pieces": [], "outputs": []}


class _Room:
    """What may still be shown: characters, lines, outputs and pictures."""

    def __init__(self) -> None:
        self.left = _MOST_TEXT
        self.lines = _MOST_LINES
        self.pictures = _Pictures()
        self._outputs = MOST_CELLS

    def take(self, text: str, most: int) -> str:
        """Return as much of a text as may be shown."""
        part = "\n".join(text[: min(most, max(self.left, 0))].split("\n", max(self.lines, 1))[: max(self.lines, 1)])
        self.left -= len(part)
        self.lines -= part.count("\n") + 1
        return part if part == text else f"{part}\n…"

    def outputs(self) -> int:
        """Return how many more outputs may be shown."""
        return max(self._outputs, 0)

    def count(self) -> None:
        """Count an output."""
        self._outputs -= 1


class _Pictures:
    """Counts the pictures of a notebook in their order, and the room that is left for further ones."""

    def __init__(self) -> None:
        self._shown = 0
        self._bytes = _MOST_PICTURES
        self._pixels = _MOST_PIXELS

    def number(self, png: bytes) -> int | None:
        """Return the number under which a picture is shown; None if there is no room for it."""
        width, height = _sides(png)
        if len(png) > self._bytes or width * height > self._pixels:
            return None
        self._bytes -= len(png)
        self._pixels -= width * height
        self._shown += 1
        return self._shown - 1


def _output(one: _Output, room: _Room) -> dict[str, Any]:
    room.count()
    png = _png(one)
    if png is not None and (picture := room.pictures.number(png)) is not None:
        return {"kind": "picture", "text": "", "picture": picture}
    if png is not None:
        return {"kind": "other", "text": "a picture beyond those that are shown", "picture": None}
    if one.output_type == "error":
        said = _text(one.traceback, "\n") or f"{one.ename}: {one.evalue}"
        return {"kind": "error", "text": room.take(_TERMINAL.sub("", said), _MOST_OUTPUT), "picture": None}
    text = one.text if one.output_type == "stream" else one.data.get("text/plain", "")
    if not (said := _text(text)) and one.data:
        named = ", ".join(sorted(map(str, one.data)))[:200]
        return {"kind": "other", "text": room.take(named, _MOST_OUTPUT), "picture": None}
    return {"kind": "text", "text": room.take(_TERMINAL.sub("", said), _MOST_OUTPUT), "picture": None}


def _picture(data: bytes, number: int) -> bytes | None:
    outputs = [one for cell in _read(data) or [] if cell.cell_type == "code" for one in cell.outputs]
    counted = _Pictures()
    found = (png for png in map(_png, outputs) if png is not None)
    return next((png for png in found if counted.number(png) == number), None)


def _png(one: _Output) -> bytes | None:
    """Return an output's PNG; None if it has none that is safe to show."""
    encoded = _text(one.data.get("image/png", ""))
    if not encoded or len(encoded) > _MOST_PICTURE * 3 // 2:
        return None
    try:
        png = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return None
    if len(png) > _MOST_PICTURE or png[:8] != _PNG or png[12:16] != b"IHDR" or len(png) < 24:
        return None
    return png if all(1 <= side <= _MOST_SIDE for side in _sides(png)) else None


def _sides(png: bytes) -> tuple[int, int]:
    """Return the width and height in a PNG's header."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _read(data: bytes) -> list[_Cell] | None:
    try:
        return decode_json(data, _Notebook).cells
    except Undecodable:
        return None


def _text(value: object, between: str = "") -> str:
    lines = value if isinstance(value, list) else [value]
    return between.join(line for line in lines if isinstance(line, str))


def _marks(source: str) -> list[Mark]:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(source)
    return list(_shallow(mark for token in tokens for mark in _marks_of(token)))


def _shallow(marks: Iterable[Mark]) -> Iterator[Mark]:
    """Drop what opens and closes elements that are too deep, and keep their text.

    The parser bounds how deep quotes, lists and links are, but not emphasis: of `****…x****…` each two stars open an
    element.
    """
    depth = 0
    for mark in marks:
        depth -= mark[0] == "close"
        if mark[0] not in ("open", "link", "close") or depth < _DEEPEST:
            yield mark
        depth += mark[0] in ("open", "link")


def _marks_of(token: Any) -> Iterator[Mark]:
    if token.type == "inline":
        for child in token.children or ():
            yield from _marks_of(child)
    elif token.type in ("fence", "code_block"):
        yield "block", token.content
    elif token.type == "code_inline":
        yield "code", token.content
    elif token.type in ("softbreak", "hardbreak"):
        yield "text", "\n"
    elif token.nesting == 1 and token.tag == "a":
        href = str(token.attrs.get("href", ""))
        yield "link", href if href.startswith(_LINKS) else ""
    elif token.nesting == 1:
        yield "open", token.tag if token.tag in _TAGS else "p"
    elif token.nesting == -1:
        yield "close", ""
    elif token.tag == "hr":
        yield from (("open", "hr"), ("close", ""))
    else:  # text; of a picture its description
        yield "text", token.content
