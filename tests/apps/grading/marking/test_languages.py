"""The examples of docs/languages.md, each compiled and run in the sandbox; one that misbehaves gets no points."""

import shutil
from pathlib import Path

import pytest

from rabbitry.apps.grading.marking import Scheme, load_scheme, mark
from tests.docs.blocks import blocks
from tests.support import programs

pytestmark = pytest.mark.timeout(300)
_COMPILERS = {"c": "gcc", "cpp": "g++", "java": "javac", "js": "node"}
# Each prints the expected text once it has done what it must not.
_HOSTILE = {
    "c": '#include <stdio.h>\nint main(void) { FILE *file = fopen("/usr/owned", "w");\n'
    '  if (!file) return 1;\n  puts("6");\n  return fclose(file); }\n',
    "cpp": "#include <cstdio>\n#include <vector>\n"
    'int main() { std::vector<char> all(2000000000, 1); std::puts(all.back() ? "6" : ""); }\n',
    "java": "public class Sum { public static void main(String[] a) throws Exception {\n"
    '  new java.io.FileWriter("/usr/owned").close(); System.out.println(6); } }\n',
    "js": 'require("fs").writeFileSync("/usr/owned", "x");\nconsole.log(6);\n',
}


def _scheme(language: str, folder: Path) -> Scheme:
    compiler = _COMPILERS[language]
    packages = "default-jdk-headless, gcc, g++ and nodejs"
    programs.require(
        None
        if shutil.which(compiler)
        else f"{compiler} is not installed (as root: scripts/system-deps installs {packages})"
    )
    found = {block.name: block.text for block in blocks("docs/languages.md")}
    (folder / "scheme.toml").write_text(found[f"{language}.toml"])
    return load_scheme(folder / "scheme.toml")


@pytest.mark.parametrize("language", _COMPILERS)
def test_the_example_gets_all_points(language: str, tmp_path: Path) -> None:
    scheme = _scheme(language, tmp_path)
    program = next(block for block in blocks("docs/languages.md") if block.language == language)
    marking = mark(scheme, program.text.encode(), program.name)
    assert (marking.mark, marking.out_of) == (3, 3), marking.feedback


# A second start of Java's compiler would cost seconds of CPU in each run of the tests.
@pytest.mark.parametrize("language", ["c", "cpp", pytest.param("java", marks=pytest.mark.faults), "js"])
def test_a_hostile_program_gets_no_points_for_running(language: str, tmp_path: Path) -> None:
    scheme = _scheme(language, tmp_path)
    marking = mark(scheme, _HOSTILE[language].encode(), "solution")
    assert marking.mark <= 1, marking.feedback
    assert "adds numbers: 0 of" in marking.feedback
    assert not Path("/usr/owned").exists()
