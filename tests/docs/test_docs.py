"""The commands and blocks of the README, docs/ and CONTRIBUTING.md run as printed."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs import machine
from tests.docs.blocks import PAGES, ROOT, blocks
from tests.support import programs

_LANGUAGES = {
    "sh": {"", "anew", "alternatives", "elsewhere"},
    "python": {"", "elsewhere"},
    "toml": {""},
    "js": {""},
    "c": {""},
    "cpp": {""},
    "java": {""},
    "json": {""},
    "text": {""},
}
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?\1")
_CELL_END = re.compile(r"(?<!\\)\|")
_BROKER = "rabbitry broker --memory"
# What a page takes for granted.
_BEFORE = {
    "README.md": [_BROKER],
    "docs/client.md": [_BROKER],
    "docs/crawl.md": [_BROKER],
    "docs/flow.md": [_BROKER],
    "docs/grading.md": [_BROKER],
    "docs/howto/from-aio-pika.md": [_BROKER],
    "docs/howto/from-celery.md": [_BROKER],
    "docs/howto/from-dramatiq.md": [_BROKER],
    "docs/howto/from-pika.md": [_BROKER],
    "docs/versions.md": [_BROKER],
    "docs/monitor.md": ["RABBITMQ_PASSWORD=secret rabbitry broker --memory --host 0.0.0.0 --user ann"],
}
# Commands of blocks that are run elsewhere, by how they begin, and the tests that run them.
_ELSEWHERE = {
    "make test": "tests/test_fresh_clone.py",
    "make check": ".ci/run",
    "pip install": "tests/test_dist.py",
    "rabbitry up": "docs/first-steps.md",
    "rabbitry web": "tests/cli/test_web_users.py",
    "rabbitry grading requests": "tests/apps/grading/test_requesting.py",
    "make ": "tests/test_repository.py: each target is there",
    "docker compose": "tests/deploy",
    "python -m rabbitry.testing": "tests/testing/test_main.py",
    "deploy/make-secrets": "tests/deploy",
}


@pytest.mark.parametrize("page", PAGES)
def test_each_block_has_a_known_kind(page: str) -> None:
    odd = [
        f"{page}:{block.line}: ```{block.language} {block.how}".rstrip()
        for block in blocks(page)
        if block.how not in _LANGUAGES.get(block.language, set()) or (block.language == "python" and not block.name)
    ]
    assert odd == []


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_elsewhere_have_a_test_there(page: str) -> None:
    commands = [
        command
        for block in blocks(page)
        if block.how == "elsewhere" and block.language == "sh"
        for command in block.commands
    ]
    assert [command for command in commands if not command.startswith(tuple(_ELSEWHERE))] == []


def test_the_app_is_the_one_of_the_examples() -> None:
    shown = {block.name: block.text.partition("\n")[2] for block in blocks("docs/apps.md") if block.name}
    example = ROOT / "examples" / "board"
    files = [path for path in example.rglob("*") if path.suffix in (".js", ".py", ".toml")]
    assert shown == {str(path.relative_to(example)): path.read_text() for path in files}


@pytest.mark.parametrize("page", PAGES)
def test_data_blocks_can_be_parsed(page: str) -> None:
    for block in blocks(page):
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_rows_of_a_table_have_as_many_cells_as_its_header(page: str) -> None:
    odd = []
    text = _FENCED.sub(lambda block: "\n" * block[0].count("\n"), (ROOT / page).read_text())
    wanted = 0
    for number, line in enumerate(text.splitlines(), 1):
        cells = len(_CELL_END.findall(_CODE.sub("", line))) if line.startswith("|") else 0
        wanted = cells if not wanted or not cells else wanted
        if cells != wanted:
            odd.append(f"{page}:{number}: {line}")
    assert odd == []


def test_the_program_for_pypi_is_the_one_of_the_readme() -> None:
    [program] = [block.text for block in blocks("PYPI.md") if block.language == "python"]
    assert program in [block.text for block in blocks("README.md")]


def _is_run(page: str) -> bool:
    return any(
        block.language == "python" or (block.language == "sh" and block.how != "elsewhere") for block in blocks(page)
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if _is_run(page)])
def test_commands_and_programs_run_as_printed(page: str, tmp_path: Path) -> None:
    programs.require(machine.why_missing())
    folder = tmp_path / "page"
    folder.mkdir()
    done = machine.run_page(
        [block for block in blocks(page) if block.how != "elsewhere"], folder, _BEFORE.get(page, [])
    )
    assert done.returncode == 0, done.stdout
