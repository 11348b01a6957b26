"""Regular expressions that meet text from outside take time in proportion to its length."""

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

from tests.support import commands

SOURCE = Path(__file__).parents[1] / "src" / "rabbitry"
CALLS = ("match", "fullmatch", "search", "findall", "sub", "split", "finditer")

TRY_ALL = """
import json, re, sys
for method, pattern, units in json.load(sys.stdin):
    tried = getattr(re.compile(pattern, re.MULTILINE), method)
    for unit in units:
        body = unit * (10_000 // len(unit))
        for text in (body, f"a{body}!"):
            tried(*([text] if method != "sub" else ["", text]))
    print(ascii(pattern), flush=True)
"""


def patterns() -> list[tuple[str, str]]:
    """Return the method and the text of each pattern in the sources."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            if not isinstance(node.args[0], ast.Constant):
                continue  # a marking scheme's own, which is looked for in a process with a time limit
            raw = node.args[0].value
            assert isinstance(raw, str | bytes)
            text = raw.decode() if isinstance(raw, bytes) else raw
            method = node.func.attr if node.func.attr in CALLS else method_of(path, node)
            found.append((method, text))
    return found


def method_of(path: Path, call: ast.Call) -> str:
    """Return the method that a compiled pattern is used with in its module."""
    module = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and node.value.lineno == call.lineno:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names.add(target.id if isinstance(target, ast.Name) else "")
    for node in ast.walk(module):
        is_used = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
        if is_used and isinstance(node, ast.Attribute) and node.attr in CALLS:
            return node.attr
    return "search"


def hostile(pattern: str) -> list[str]:
    """Return pieces of what a pattern looks for; over and over, with something else at the end, they are long texts."""
    letters = sorted({letter for letter in pattern if not letter.isalnum()} | set("a1 \t./:@`"))
    units = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    return [*units, " - at `", " (at line 1", "[[a", "x=", "amqp://u:"]


def test_each_pattern_handles_a_long_text_in_time() -> None:
    tries = [(method, pattern, hostile(pattern)) for method, pattern in patterns()]
    assert ("sub", r"(://[^\s:/@]*):[^\s/]*@") in [(method, pattern) for method, pattern, _ in tries]
    # A quadratic pattern takes minutes for each of hundreds of texts; the limit is there to end it.
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL], input=json.dumps(tries), env=commands.environment(),
        capture_output=True, text=True, timeout=250, check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == len(tries)
