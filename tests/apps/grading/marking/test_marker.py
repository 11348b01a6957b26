"""Results of marking harmless submissions: points, reasons and feedback."""

import io
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from rabbitry.apps.grading.marking import Marking, PartResult, mark
from tests.apps.grading.marking.conftest import MakeScheme, Run

_SORTING = """
[[part]]
name = "compiles"
points = 1
command = "python3 -m py_compile main.py"

[[part]]
name = "sorts"
points = 3
command = ["python3", "main.py"]
stdin = "3\\n1\\n2\\n"
expect = { exact = "1\\n2\\n3" }

[[part]]
name = "refuses what is no number"
points = 2.5
command = "echo x | python3 main.py"
exit = 1
expect = { regex = "^not a number: '?x" }
"""
_GOOD = """
import sys
try: print(*sorted(int(line) for line in sys.stdin), sep=" \\n")
except ValueError: sys.exit(print("not a number: x") or 1)
"""
_HALF = "import sys\nprint(*sorted(sys.stdin), sep='')\nprint('more')"


def test_the_right_solution_gets_all_points(scheme: MakeScheme) -> None:
    marking = mark(scheme(_SORTING), _GOOD.encode(), "main.py")
    assert marking == Marking(
        mark=6.5,
        out_of=6.5,
        feedback="Homework: 6.5 of 6.5 points\n\n✔ compiles: 1 of 1\n✔ sorts: 3 of 3\n"
        "✔ refuses what is no number: 2.5 of 2.5\n",
        parts=[
            PartResult("compiles", 1, 1, True, ""),
            PartResult("sorts", 3, 3, True, "1 \n2 \n3"),
            PartResult("refuses what is no number", 2.5, 2.5, True, "not a number: x"),
        ],
    )
    assert msgspec.json.decode(msgspec.json.encode(marking), type=Marking) == marking


def test_a_partly_right_submission_gets_some_points_and_reasons(scheme: MakeScheme) -> None:
    marking = mark(scheme(_SORTING), _HALF.encode(), "main.py")
    assert (marking.mark, [part.passed for part in marking.parts]) == (1, [True, False, False])
    assert marking.feedback == (
        "Homework: 1 of 6.5 points\n\n✔ compiles: 1 of 1\n"
        "✘ sorts: 0 of 3\n    the output differs from what is expected, from line 4 on\n    \n"
        "    1\n    2\n    3\n    \n    more\n"
        "✘ refuses what is no number: 0 of 2.5\n    exited with 0, not with 1\n    \n    x\n    \n    more\n"
    )


@pytest.mark.parametrize(
    ("program", "expect", "why"),
    [
        ("print('a\\nb')", 'exact = "a\\nb"', None),
        ("print('a  \\r\\nb\\n\\n')", 'exact = "a\\nb"', None),
        ("print('a')", 'exact = "a\\nb"', "printed 1 line, but more are expected"),
        ("print('a\\nc')", 'exact = "a\\nb"', "from line 2 on"),
        ("print(' a')", 'exact = "a"', "from line 1 on"),
        ("pass", 'exact = ""', None),
        ("print('the 42 of it')", 'contains = "42"', None),
        ("print('the 43 of it')", 'contains = "42"', "did not print the expected text"),
        ("import sys; print('42', file=sys.stderr)", 'contains = "42"', "did not print"),
        ("print('x\\n42')", 'regex = "^4.$"', None),
        ("print('x42')", 'regex = "^4.$"', "did not print"),
        ("print('a' * 40 + 'b')", 'regex = "(a+)+$"', "could not be searched within 2 s of CPU time"),
        ("raise SystemExit(7)", 'exact = ""', "exited with 7, not with 0"),
        ("import os; os.abort()", 'exact = ""', "was ended by SIGABRT"),
        ("1 / 0", 'exact = ""', "ZeroDivisionError"),
    ],
)
def test_output_is_compared_with_the_expected_output(
    scheme: MakeScheme, program: str, expect: str, why: str | None
) -> None:
    part = f'[[part]]\nname = "x"\npoints = 1\ncommand = ["python3", "main.py"]\nexpect = {{ {expect} }}\n'
    result = mark(scheme(part), program.encode(), "main.py").parts[0]
    assert result.passed is (why is None)
    assert (why or "") in result.output


def test_the_expected_output_is_not_revealed(scheme: MakeScheme) -> None:
    part = '[[part]]\nname = "x"\npoints = 1\ncommand = ["python3", "main.py"]\nexpect = { exact = "treasure" }\n'
    assert "treasure" not in repr(mark(scheme(part), b"print(1)", "main.py"))


def test_a_missing_command_fails_its_part(scheme: MakeScheme) -> None:
    part = '[[part]]\nname = "x"\npoints = 1\ncommand = ["no-such-command"]\n'
    result = mark(scheme(part), b"x", "main.py").parts[0]
    assert "exited with 127" in result.output


def test_each_part_starts_with_the_original_submission(scheme: MakeScheme) -> None:
    parts = "".join(
        f'[[part]]\nname = "{n}"\npoints = 1\ncommand = "test ! -e left && touch left /tmp/left && test -e main.py"\n'
        for n in range(2)
    )
    assert mark(scheme(parts), b"x", "whatever.txt").mark == 2


def test_an_archive_keeps_its_folders_and_executable_files(scheme: MakeScheme) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {"homework/run": b"#!/bin/sh\ncat lib/text\n", "homework/lib/text": b"found"}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o700
            archive.addfile(info, io.BytesIO(content))
    part = '[[part]]\nname = "x"\npoints = 1\ncommand = ["./run"]\nexpect = { exact = "found" }\n'
    mask = os.umask(0o077)
    try:
        marking = mark(scheme(part), packed.getvalue(), "homework.tgz")
    finally:
        os.umask(mask)
    assert marking.mark == 1, marking.feedback


def test_the_environment_is_empty_but_for_three(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_PASSWORD", "secret")
    marking = run("import os; print(sorted(os.environ))", expect="['HOME', 'LANG', 'PATH', 'PWD']")
    assert marking.mark == 4, marking.feedback


def test_a_program_may_use_more_cores_files_and_semaphores_as_usual(run: Run) -> None:
    program = """
import multiprocessing, os, sqlite3, tempfile, threading
if __name__ == "__main__":
    with multiprocessing.Pool(3) as pool: print(sum(pool.map(abs, range(100))))
    with tempfile.TemporaryFile() as file: file.write(b"x")
    sqlite3.connect("data.db").execute("create table t (x)")
"""
    marking = run(program, expect="4950")
    assert marking.mark == 4, marking.feedback


def test_names_of_this_host_and_of_the_user_resolve(run: Run) -> None:
    program = """
import getpass, grp, os, pathlib, pwd, socket, subprocess
home = pathlib.Path("~student").expanduser()
print(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_dir, grp.getgrgid(os.getgid()).gr_name, home)
whoami = subprocess.run(["whoami"], capture_output=True, text=True, check=True)
print(whoami.stdout.strip(), socket.gethostname())
for name in ("localhost", socket.gethostname()):
    with socket.create_server((name, 0)) as server, socket.create_connection((name, server.getsockname()[1])): pass
    print(socket.gethostbyname(name))
"""
    marking = run(program, expect="student /tmp/work student /tmp/work\nstudent sandbox\n127.0.0.1\n127.0.0.1\n")
    assert marking.mark == 4, marking.feedback


_JAVA = """
import java.net.InetAddress;
import java.util.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        List<Integer> numbers = new ArrayList<>();
        for (int n = 0; n < 500_000; n++) numbers.add(n);
        Collections.shuffle(numbers);
        Collections.sort(numbers);
        Thread[] threads = new Thread[8];
        for (int n = 0; n < 8; n++) (threads[n] = new Thread(() -> {})).start();
        for (Thread thread : threads) thread.join();
        System.out.println(numbers.get(5) + " " + System.getProperty("user.name") + " " + InetAddress.getLocalHost());
    }
}
"""


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK is installed (Debian: default-jdk-headless)")
@pytest.mark.parametrize(
    "memory", ["256 MiB", *(pytest.param(size, marks=pytest.mark.faults) for size in ("512 MiB", "2 GiB"))]
)
def test_java_fits_into_its_memory(scheme: MakeScheme, memory: str) -> None:
    # By default a JVM takes a quarter of the machine's memory for its heap.
    part = (
        '[[part]]\nname = "x"\npoints = 1\ncommand = "cp main.py Main.java && javac Main.java && java Main"\n'
        'expect = { exact = "5 student sandbox/127.0.0.1" }\n'
        f'limits = {{ memory = "{memory}", wall_seconds = 60, cpu_seconds = 60 }}\n'
    )
    marking = mark(scheme(part), _JAVA.encode(), "Main.java")
    assert marking.mark == 1, marking.feedback


def test_many_markings_at_once_are_separate(scheme: MakeScheme) -> None:
    checked = scheme('[[part]]\nname = "x"\npoints = 1\ncommand = "sleep 0.2; ls /tmp; cat main.py"\n')
    with ThreadPoolExecutor(8) as pool:
        markings = list(pool.map(lambda n: mark(checked, f"number {n}".encode(), "main.py"), range(24)))
    assert [marking.parts[0].output for marking in markings] == [
        f"{markings[0].parts[0].output.removesuffix('number 0')}number {n}" for n in range(24)
    ]


def test_a_long_output_keeps_its_beginning_and_its_end(run: Run) -> None:
    program = "print('first')\nprint('x\\n' * 20000)\nprint('last', '-' * 20000)\nraise ValueError('the reason')"
    marking = run(program, output="1 MiB")
    output = marking.parts[0].output
    assert len(output) < 4100
    assert output.startswith("exited with 1, not with 0\n\nfirst\nx\n")
    assert output.endswith("ValueError: the reason")
    lines = marking.feedback.splitlines()
    assert len(lines) < 40
    assert "    first" in lines
    assert "    …" in lines
    assert lines[-1] == "    ValueError: the reason"


@pytest.mark.parametrize("noisy", ["stdout", "stderr"])
def test_one_stream_does_not_push_the_other_out(run: Run, noisy: str) -> None:
    program = f"""
import sys
noisy, other = (sys.stdout, sys.stderr) if {noisy!r} == "stdout" else (sys.stderr, sys.stdout)
print("the error", file=other)
for n in range(2000): print("noise", n, file=noisy)
sys.exit(1)
"""
    marking = run(program)
    assert "the error" in marking.parts[0].output
    assert "    the error\n" in marking.feedback
    assert "    noise 1999\n" in marking.feedback


def test_a_feedback_is_bounded_whatever_the_number_of_parts(scheme: MakeScheme) -> None:
    parts = "".join(
        f'[[part]]\nname = "part {n}"\npoints = 0.1\ncommand = "seq -f %0999.0f 20; exit 1"\n' for n in range(40)
    )
    marking = mark(scheme(parts), b"x", "main.py")
    assert len(marking.feedback) <= 60_001
    assert "part 0: 0 of 0.1" in marking.feedback
    assert "part 39: 0 of 0.1" in marking.feedback


def test_marks_are_sums_of_decimals(scheme: MakeScheme) -> None:
    points = {"a": "0.1", "b": "0.2", "c": "1.005", "d": "1e-3", "e": "1000000"}
    parts = "".join(f'[[part]]\nname = "{n}"\npoints = {p}\ncommand = "true"\n' for n, p in points.items())
    checked = scheme(parts)
    marking = mark(checked, b"x", "main.py")
    assert (marking.mark, marking.out_of) == (1000001.306, 1000001.306)
    assert marking.feedback.startswith("Homework: 1000001.306 of 1000001.306 points\n\n✔ a: 0.1 of 0.1\n")
    assert "✔ e: 1000000 of 1000000\n" in marking.feedback
    first_two = scheme(parts[: parts.index('[[part]]\nname = "c"')])
    assert msgspec.json.encode(mark(first_two, b"x", "main.py")).startswith(b'{"mark":0.3,"out_of":0.3,')


def test_bonus_points_come_on_top(scheme: MakeScheme) -> None:
    parts = (
        '[[part]]\nname = "runs"\npoints = 2\ncommand = "true"\n'
        '[[part]]\nname = "is fast"\npoints = 0.5\nbonus = true\ncommand = "grep -q fast main.py"\n'
    )
    marking = mark(scheme(parts), b"fast", "main.py")
    assert (marking.mark, marking.out_of) == (2.5, 2)
    assert marking.feedback == "Homework: 2.5 of 2 points\n\n✔ runs: 2 of 2\n✔ is fast: 0.5 of 0.5 (bonus)\n"
    assert [part.bonus for part in marking.parts] == [False, True]
    without = mark(scheme(parts), b"slow", "main.py")
    assert (without.mark, without.out_of) == (2, 2)
    assert "✘ is fast: 0 of 0.5 (bonus)\n" in without.feedback


def test_a_part_ends_with_its_command_not_with_its_time(run: Run) -> None:
    assert run("print(1)", wall_seconds=3600).mark == 4  # far below the test's own limit


_HIDDEN = """
[[part]]
name = "shown"
points = 1.5
command = ["python3", "main.py"]

[[part]]
name = "secret one"
points = 0.1
hidden = true
command = "echo SECRET; exit 1"

[[part]]
name = "secret two"
points = 0.2
hidden = true
command = ["python3", "main.py"]
"""


def test_hidden_parts_show_their_points_alone_until_they_are_revealed(scheme: MakeScheme) -> None:
    told = mark(scheme(_HIDDEN), b"x=1", "main.py")
    assert told.feedback == "Homework: 1.7 of 1.8 points\n\n✔ shown: 1.5 of 1.5\n… 2 parts not shown: 0.2 of 0.3\n"
    assert [part.name for part in told.parts] == ["shown", "secret one", "secret two"]
    later = mark(scheme("reveal = 2999-12-01T12:00:00+01:00\n" + _HIDDEN), b"x=1", "main.py")
    assert "2 parts not shown before 2999-12-01 11:00 UTC: 0.2 of 0.3" in later.feedback
    assert "SECRET" not in later.feedback
    assert "secret" not in later.feedback
    past = mark(scheme("hidden = true\nreveal = 2001-12-01T12:00:00Z\n" + _HIDDEN), b"x=1", "main.py")
    assert "✘ secret one: 0 of 0.1" in past.feedback
    assert "SECRET" in past.feedback
    every = scheme("hidden = true\n" + _HIDDEN)
    assert {part.name for part in every.part if part.hidden} == {"shown", "secret one", "secret two"}
