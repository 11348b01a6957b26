"""Notebooks as the page shows them: nothing of them is markup, and each limit holds."""

import base64
import json
import struct
import sys
from typing import Any

import pytest

from rabbitry.apps.grading.notebooks import MOST_CELLS, _cells, _picture, cells_of, picture_of
from rabbitry.apps.grading.showing import shown

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def png(width: int = 2, height: int = 3, more: int = 0) -> str:
    head = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    )
    return base64.b64encode(head + bytes(more)).decode()


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": [*outputs], "metadata": {}}


def shows(**data: Any) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {name.replace("_", "/", 1): value for name, value in data.items()}}


def notebook(*cells: Any) -> bytes:
    return json.dumps({"cells": [*cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source}


def test_markdown_becomes_marks_without_markup_of_its_own() -> None:
    source = f"# A *title*\n\n{EVIL}\n\n[bad](javascript:alert(1)) [data](data:text/html,x) [good](https://a.b) ![a picture](https://a.b/c.png)"
    cell, raw = _cells(notebook(markdown(source), {"cell_type": "raw", "source": "*a*"})) or []
    assert (cell["pieces"], raw["kind"], raw["marks"], raw["pieces"]) == ([(source, None)], "raw", [], [("*a*", None)])
    marks = cell["marks"]
    assert marks[:7] == [
        ("open", "h1"), ("text", "A "), ("open", "em"), ("text", "title"), ("close", ""), ("close", ""), ("open", "p")
    ]  # fmt: skip
    assert EVIL in "".join(said for kind, said in marks if kind == "text")
    assert [said for kind, said in marks if kind == "link"] == ["https://a.b"]
    assert ("text", "a picture") in marks
    opened = sum(kind in ("open", "link") for kind, _ in marks)
    assert opened == sum(kind == "close" for kind, _ in marks)


def test_markdown_is_not_drawn_deeper_than_a_browser_s_stack() -> None:
    for source in ("**" * 2_000 + "x" + "**" * 2_000, "*a " * 2_000 + "x" + " b*" * 2_000):
        ((cell),) = _cells(notebook(markdown(source))) or []
        depth = deepest = 0
        for kind, _ in cell["marks"]:
            depth += {"open": 1, "link": 1, "close": -1}.get(kind, 0)
            deepest = max(deepest, depth)
        assert (depth, deepest) == (0, 50)
        assert "x" in "".join(said for kind, said in cell["marks"] if kind == "text")


def test_outputs_are_text_and_pictures_and_others_are_named() -> None:
    outputs = [
        {"output_type": "stream", "text": ["a\n", "b"]},
        shows(text_html=EVIL, application_javascript="alert(1)"),
        shows(text_html=EVIL, text_plain="a table"),
        shows(image_png=png(), text_plain="<Figure>"),
        shows(**{"image_svg+xml": "<svg/>"}),
        {"output_type": "error", "ename": "E", "evalue": "why", "traceback": ["\x1b[31mE\x1b[0m", "why"]},
        shows(image_png=[png()]),
    ]
    (cell,) = cells_of(notebook(code("x = 1", *outputs))) or []
    assert ("1", "number") in cell["pieces"]
    assert [(one["kind"], one["text"], one["picture"]) for one in cell["outputs"]] == [
        ("text", "a\nb", None), ("other", "application/javascript, text/html", None), ("text", "a table", None),
        ("picture", "", 0), ("other", "image/svg+xml", None), ("error", "E\nwhy", None), ("picture", "", 1),
    ]  # fmt: skip
    data = notebook(code("", *outputs))
    assert picture_of(data, 1) == base64.b64decode(png())
    assert (picture_of(data, 2), picture_of(data, -1), picture_of(b"{", 0)) == (None, None, None)


@pytest.mark.parametrize(
    "given",
    [png(5_001), png(1, 1 << 31), png(0), png(more=2_000_000), "x" * 4_000_000, base64.b64encode(b"GIF89a").decode(),
     "not base64 \x00", png()[:20], 7, {"a": 1}],
)  # fmt: skip
def test_a_picture_that_is_none_or_too_large_is_not_shown(given: Any) -> None:
    (cell,) = _cells(notebook(code("", shows(image_png=given)))) or []
    assert [one["kind"] for one in cell["outputs"]] == ["other"]


def test_the_pictures_of_a_notebook_are_bounded_together() -> None:
    large, wide, small = png(more=1_999_000), png(5_000, 3_000), png()
    data = notebook(code("", *[shows(image_png=large)] * 11, shows(image_png=small)), code("", shows(image_png=wide)))
    first, second = _cells(data) or []
    assert [one["picture"] for one in first["outputs"]] == [*range(10), None, 10]
    assert first["outputs"][10]["text"] == "a picture beyond those that are shown"
    assert (second["outputs"][0]["picture"], _picture(data, 10)) == (11, base64.b64decode(small))
    (cell,) = _cells(notebook(code("", *[shows(image_png=wide)] * 7))) or []
    assert [one["picture"] for one in cell["outputs"]] == [*range(6), None]


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"[]", b"{}", b'{"cells": 7}', b'{"cells": [7]}'])
def test_what_is_no_notebook_is_shown_as_text(data: bytes) -> None:
    assert _cells(data) is None
    if data == b"{":
        found = shown(data, "x.IPYNB")
        assert (found["notebook"], "".join(said for said, _ in found["pieces"])) == (None, "{")


def test_limits_hold_for_the_whole_page() -> None:
    found = _cells(notebook(*[code("pass")] * 100_000)) or []
    assert len(found) == MOST_CELLS + 1
    assert ("text", f"Only the first {MOST_CELLS} of 100000 cells are shown.") in found[-1]["marks"]
    found = _cells(notebook(code("\n" * 4_000), code("\n" * 4_000), code("x"))) or []
    assert sum(text.count("\n") for cell in found for text, _ in cell["pieces"]) < 5_010
    assert [cell["kind"] for cell in found] == ["code", "code", "markdown"]
    stream = {"output_type": "stream", "text": "x" * 10_000}
    found = _cells(notebook(*[code("y" * 1_000, *[stream] * 100)] * 6)) or []
    outputs = [one for cell in found for one in cell["outputs"]]
    assert len(outputs) <= MOST_CELLS
    assert sum(len(one["text"]) for one in outputs) < 210_000
    deep = ">" * 5_000 + " x"
    (cell,) = _cells(notebook(markdown(deep))) or []
    assert sum(kind == "open" for kind, _ in cell["marks"]) < 50


def test_a_notebook_that_can_t_be_read_within_limits_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # as a process that is killed at a limit: no answer comes
    assert (cells_of(notebook(code("x"))), picture_of(notebook(code("x")), 0)) == (None, None)
