"""The examples of docs/languages.md, each compiled and run in the sandbox, and a hostile program of each language."""

import shutil
import socket
from pathlib import Path

import pytest

from rabbitry.apps.grading.marking import Scheme, load_scheme, mark
from tests.docs.blocks import blocks
from tests.support import programs

pytestmark = pytest.mark.timeout(300)
_COMPILERS = {"c": "gcc", "cpp": "g++", "java": "javac", "js": "node"}
_C = """
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **arguments) {
    (void)arguments;
    for (volatile int number = 0; count > 1; number = number + 1) { }
    printf("reading %s\\n", fopen("SECRET", "r") ? "OPEN" : "shut");
    printf("writing %s\\n", fopen("/usr/owned", "w") ? "OPEN" : "shut");
    struct sockaddr_in to;
    to.sin_family = AF_INET;
    to.sin_port = htons(PORT);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int end = socket(AF_INET, SOCK_STREAM, 0);
    printf("network %s\\n", connect(end, (struct sockaddr *)&to, sizeof to) ? "shut" : "OPEN");
    fflush(stdout);
    int forks = 0;
    for (; forks < 300; forks++) {
        int child = fork();
        if (child < 0) break;
        if (child == 0) for (;;) pause();
    }
    printf("forks %s\\n", forks < 300 ? "bounded" : "ENDLESS");
    for (;;) puts("flood");
}
"""
_JAVA = """
import java.net.Socket;
import java.nio.file.*;
import java.util.concurrent.Callable;
public class Sum {
    static boolean succeeds(Callable<?> attack) {
        try { attack.call(); return true; } catch (Throwable error) { return false; }
    }
    static void tell(String name, Callable<?> attack) {
        System.out.println(name + (succeeds(attack) ? " OPEN" : " shut"));
    }
    public static void main(String[] arguments) {
        while (arguments.length > 0) { }
        tell("reading", () -> Files.readAllBytes(Path.of("SECRET")));
        tell("writing", () -> Files.writeString(Path.of("/usr/owned"), "x"));
        tell("network", () -> new Socket("127.0.0.1", PORT));
        int forks = 0;
        while (forks < 300 && succeeds(() -> new ProcessBuilder("sleep", "600").start())) forks++;
        System.out.println("forks " + (forks < 300 ? "bounded" : "ENDLESS"));
        while (true) System.out.println("flood");
    }
}
"""
_JS = """
const { readFileSync, writeFileSync, writeSync } = require("fs");
const { spawn } = require("child_process");
while (process.argv.length > 2) { }
function tell(name, attack) {
  try { attack(); writeSync(1, `${name} OPEN\\n`); } catch { writeSync(1, `${name} shut\\n`); }
}
tell("reading", () => readFileSync("SECRET"));
tell("writing", () => writeFileSync("/usr/owned", "x"));
const socket = require("net").connect(PORT, "127.0.0.1");
socket.on("connect", () => next("OPEN")).on("error", () => next("shut"));
function next(network) {
  writeSync(1, `network ${network}\\n`);
  let forks = 0;
  for (; forks < 300; forks++) {
    const child = spawn("sleep", ["600"], { stdio: "ignore" }).on("error", () => {});
    if (child.pid === undefined) break;
  }
  writeSync(1, `forks ${forks < 300 ? "bounded" : "ENDLESS"}\\n`);
  for (;;) writeSync(1, "flood\\n");
}
"""
_HOSTILE = {
    "c": (_C, "sum.c", "gcc -o sum sum.c && ./sum", 1),
    "cpp": (_C, "sum.cpp", "g++ -o sum sum.cpp && ./sum", 2),
    "java": (_JAVA, "Sum.java", "javac -J-Xmx256m Sum.java && java -Xmx256m -XX:+UseSerialGC Sum", 8),
    "js": (_JS, "sum.js", "node sum.js", 1),
}
"""Language: a program that tries what it must not, its name, the command, and the seconds of CPU time that a loop gets.

Python's are in `test_hostile`.
"""


def _require(language: str) -> None:
    compiler = _COMPILERS[language]
    packages = "default-jdk-headless, gcc, g++ and nodejs"
    programs.require(
        None
        if shutil.which(compiler)
        else f"{compiler} is not installed (as root: scripts/system-deps installs {packages})"
    )


def _scheme(language: str, folder: Path) -> Scheme:
    _require(language)
    found = {block.name: block.text for block in blocks("docs/languages.md")}
    (folder / "scheme.toml").write_text(found[f"{language}.toml"])
    return load_scheme(folder / "scheme.toml")


@pytest.mark.parametrize("language", _COMPILERS)
def test_the_example_gets_all_points(language: str, tmp_path: Path) -> None:
    scheme = _scheme(language, tmp_path)
    program = next(block for block in blocks("docs/languages.md") if block.language == language)
    marking = mark(scheme, program.text.encode(), program.name)
    assert (marking.mark, marking.out_of) == (3, 3), marking.feedback


def test_a_program_that_takes_all_memory_gets_no_points(tmp_path: Path) -> None:
    program = """#include <cstdio>
#include <vector>
int main() { std::vector<char> all(2000000000, 1); std::puts(all.back() ? "6" : ""); }
"""
    marking = mark(_scheme("cpp", tmp_path), program.encode(), "solution")
    assert marking.mark <= 1, marking.feedback
    assert "adds numbers: 0 of" in marking.feedback


# Java would cost several seconds of CPU in each run of the tests.
@pytest.mark.parametrize("language", ["c", "cpp", pytest.param("java", marks=pytest.mark.faults), "js"])
def test_a_hostile_program_gets_nowhere(language: str, tmp_path: Path) -> None:
    program, name, command, seconds = _HOSTILE[language]
    _require(language)
    (tmp_path / "secret").write_text("of another student")
    parts = ""
    for attack, cpu_seconds in (("", 60), (" loop", seconds)):
        limits = f'{{ wall_seconds = 100, cpu_seconds = {cpu_seconds}, memory = "1 GiB", processes = 100 }}'
        parts += f'[[part]]\nname = "x{attack}"\npoints = 1\nlimits = {limits}\ncommand = "{command}{attack}"\n'
    (tmp_path / "scheme.toml").write_text(f'[scheme]\nname = "Hostile"\nfile = "{name}"\n{parts}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted = {"SECRET": str(tmp_path / "secret"), "PORT": str(server.getsockname()[1])}
        for word, value in wanted.items():
            program = program.replace(word, value)
        marking = mark(load_scheme(tmp_path / "scheme.toml"), program.encode(), name)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    attacks, loop = (one.output for one in marking.parts)
    assert (marking.mark, "printed more than 64 KiB" in attacks) == (0, True), marking.feedback
    for told in ("reading shut", "writing shut", "network shut", "forks bounded"):
        assert f"{told}\n" in attacks
    assert f"used more than {seconds} s of CPU time" in loop
    assert not Path("/usr/owned").exists()
