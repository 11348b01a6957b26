"""The fenced blocks of the pages.

The word after the fence says what a block is, and a second word how it is run:

| fence | what is done with it |
|---|---|
| `sh` | its lines are run in order; services that it starts run until the page ends |
| `sh anew` | the same, after all services of the page were stopped and what was exported is forgotten |
| `sh alternatives` | each line is run anew, alone |
| `sh elsewhere`, `python elsewhere` | tested by other tests: tests/docs/test_docs.py says which |
| `python` | a program whose first line is its name, `# name.py`; `test_….py` is run by pytest |
| `toml`, `json` | parsed; written to a file where the first line is its name, `# name.toml` |
| `js` | written to a file; its first line is its name, `// name.js` |
| `c`, `cpp`, `java` | compiled and run by tests/apps/grading/marking/test_languages.py |
| `text` | shown, not run |

A file in a folder, `# folder/name.py`, is part of a package: it is written, and used by other blocks.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (
    "README.md",
    "README.fr.md",
    "PYPI.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
)

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?:#|//) ((?:[\w-]+/)*[\w.-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Where its text begins in the page, from 1.
        language: The first word after the fence.
        how: The other words after the fence.
        name: The file that it is, "" where it is none.
        text: What stands between the fences.
    """

    line: int
    language: str
    how: str
    name: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines, without blank ones and comments; a line that ends with a backslash goes on in the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    found = []
    for match in _FENCED.finditer(text):
        language, _, how = match[1].partition(" ")
        named = _NAMED.match(match[2])
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(line, language, how, named[1] if named else "", match[2]))
    return found
