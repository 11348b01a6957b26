"""Imports of the pages' modules: each is exported, and is imported once. tests/browser/test_modules.py parses them."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import rabbitry

_SOURCES = Path(rabbitry.__file__).parent
_MADE = "static/views.js"
"""A module that the dashboard makes."""
_IMPORT = re.compile(r"""^import\s+([^"';]+?)\s+from\s+"([^"]+)";""", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+(?:default\s+)?(?:async\s+)?(?:function|class|const|let)\b\*?\s*(\w+)", re.MULTILINE)
_EXPORTED = re.compile(r"^export\s+\{([^}]*)\}", re.MULTILINE)

# htm drops the space at a line's end or beginning: there, text and an element within it need `${" "}` between them.
_LOST_SPACE = re.compile(
    r"""[\w.,:;!?…)]\n\s+<(?:a|b|bdi|code|em|kbd|strong)\b|(?:/>|</(?:a|b|bdi|code|em|kbd|span|strong)>)\n\s+[a-z·(]"""
)


def _modules() -> dict[str, str]:
    """Return the texts of all modules by their paths in the dashboard."""
    folders = {"static": _SOURCES / "web" / "static"}
    folders |= {f"{folder.parent.name}/static": folder for folder in _SOURCES.glob("apps/*/static")}
    return {
        f"{place}/{path.relative_to(folder).as_posix()}": path.read_text()
        for place, folder in folders.items()
        for path in folder.rglob("*.*js")
    }


def _members(listed: str) -> list[tuple[str, str]]:
    """Return the names of a list in braces, and the names that they get."""
    pairs = [member.split(" as ") for member in listed.split(",") if member.strip()]
    return [(pair[0].strip(), pair[-1].strip()) for pair in pairs]


def _imported(clause: str) -> Iterator[tuple[str, str]]:
    """Yield the names that an import takes from another module, and the names that they get."""
    outside, _, rest = clause.partition("{")
    yield from _members(rest.partition("}")[0])
    for name in filter(None, (part.strip() for part in outside.split(","))):
        yield ("*", name.removeprefix("* as ")) if name.startswith("*") else ("default", name)


def _exported(text: str) -> set[str]:
    names = set(_EXPORT.findall(text)) | {new for listed in _EXPORTED.findall(text) for _, new in _members(listed)}
    return names | ({"default"} if re.search(r"^export default ", text, re.MULTILINE) else set())


def _wrong(modules: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the imports of modules."""
    found: list[str] = []
    for place, text in modules.items():
        if "/vendor/" in place:
            continue
        names: set[str] = set()
        for clause, target in _IMPORT.findall(text):
            source = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
            if source not in modules and source != _MADE:
                found.append(f"{place}: there is no module {source}")
            for name, new in _imported(clause):
                if new in names:
                    found.append(f"{place}: {new} is imported twice")
                names.add(new)
                is_ours = source in modules and "/vendor/" not in source
                if is_ours and name != "*" and name not in _exported(modules[source]):
                    found.append(f"{place}: {source} exports no {name}")
    return found


def test_each_import_of_a_page_is_there_and_has_a_name_of_its_own() -> None:
    modules = _modules()
    assert {"static/html.js", "grading/static/grading.js", "monitor/static/main.js"} <= modules.keys()
    assert _wrong(modules) == []


def test_imports_that_no_browser_would_take_are_found() -> None:
    modules = {
        "a/static/main.js": """import htm, { one, two as three } from "./parts.js";
import {
  one,
  missing,
} from "./parts.js";
import * as all from "./none.js";
import "./effects.js";
import { views } from "../../static/views.js";
import default_ from "./parts.js";
""",
        "a/static/parts.js": """export const one = 1;
export async function two() {}
const four = 4;
export { four as missed };
export default class Parts {}
""",
    }
    assert _wrong(modules) == [
        "a/static/main.js: one is imported twice",
        "a/static/main.js: a/static/parts.js exports no missing",
        "a/static/main.js: there is no module a/static/none.js",
    ]


def test_no_space_between_text_and_an_element_is_lost_at_the_end_of_a_line() -> None:
    lost = {
        f"{path}:{text.count(chr(10), 0, found.start()) + 1}": found[0]
        for path, text in _modules().items()
        if "/vendor/" not in path
        for found in _LOST_SPACE.finditer(text)
    }
    assert lost == {}
