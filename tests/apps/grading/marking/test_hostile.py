"""Hostile submissions: the result of each, and that nothing of it is left."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rabbitry.apps.grading.exceptions import SubmissionRefused
from rabbitry.apps.grading.marking import Marking, mark
from tests.apps.grading.marking.conftest import MakeScheme, Run, of_token


def _output(marking: Marking) -> str:
    assert marking.parts[0].passed is (marking.mark == 4)
    return marking.parts[0].output


def test_a_fork_bomb_gets_no_more_processes_than_it_may(run: Run, token: str) -> None:
    # Each refusal is followed by a moment of sleep: without it, the bomb takes both cores for all of its time.
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)\n"
    most, done = 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, len(of_token(token)))

    with ThreadPoolExecutor() as pool:
        counting = pool.submit(count)
        try:
            marking = run(bomb, processes=20, wall_seconds=4, cpu_seconds=60)
        finally:
            done.set()
        counting.result()
    assert "ran longer than 4 s" in _output(marking)
    assert 10 < most <= 24  # and two processes of bubblewrap


def test_threads_count_as_processes(run: Run) -> None:
    program = """
import threading, time
try:
    for n in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    print("no more after", n)
"""
    marking = run(program, processes=20, expect="no more after 1")
    assert marking.mark == 4, marking.feedback


def test_memory_of_one_process(run: Run) -> None:
    marking = run("x = b'x' * (1 << 30)\nprint('got it')", memory="128 MiB")
    assert "MemoryError" in _output(marking)
    assert "got it" not in _output(marking)


@pytest.mark.parametrize(
    "take",
    [
        "x = [bytearray(b'x') * (80 << 20)]",
        # No process may have so much private memory; shared memory is not private.
        "import mmap; x = mmap.mmap(-1, 1 << 30)\nfor n in range(0, 1 << 30, 4096): x[n] = 1",
    ],
)
def test_memory_of_all_processes_together(run: Run, take: str) -> None:
    program = f"import os, time\nfor _ in range(4):\n    os.fork()\n{take}\ntime.sleep(60)\n"
    marking = run(program, memory="128 MiB", wall_seconds=100, cpu_seconds=30)
    assert "used more than 128 MiB of memory" in _output(marking)


_FILLED_BY_CHILDREN = """
for _ in range(40):
    piece = mmap.mmap(-1, 16 << 20)
    kept.append(piece)
    if os.fork() == 0:
        piece.write(bytes(16 << 20))
        os._exit(0)
    os.wait()
"""
_GIVEN_BACK = """
for _ in range(40):
    piece = mmap.mmap(-1, 16 << 20)
    kept.append(piece)
    piece.write(bytes(16 << 20))
    piece.madvise(mmap.MADV_DONTNEED)
"""
_OF_DEV_ZERO = """
zero = os.open("/dev/zero", os.O_RDWR)
for _ in range(40):
    piece = mmap.mmap(zero, 16 << 20)
    kept.append(piece)
    piece.write(bytes(16 << 20))
    piece.madvise(mmap.MADV_DONTNEED)
"""


@pytest.mark.parametrize(
    "fill", [_FILLED_BY_CHILDREN, _GIVEN_BACK, _OF_DEV_ZERO], ids=["by children", "given back", "of /dev/zero"]
)
def test_shared_memory_counts_if_no_process_has_its_pages(run: Run, fill: str) -> None:
    program = f"import mmap, os, time\nkept = []\n{fill}\ntime.sleep(60)\n"
    marking = run(program, memory="128 MiB", wall_seconds=100, cpu_seconds=30)
    assert "used more than 128 MiB of memory" in _output(marking)


def test_shared_memory_within_the_bound_is_no_harm(run: Run) -> None:
    program = """
import mmap, os, time
shared = mmap.mmap(-1, 60 << 20)
children = []
for _ in range(4):
    if (pid := os.fork()) == 0:
        shared[:] = bytes(len(shared))
        time.sleep(1)
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
print("done")
"""
    marking = run(program, memory="256 MiB", wall_seconds=100, expect="done")
    assert marking.mark == 4, marking.feedback


def test_an_address_space_in_very_many_pieces_is_stopped(run: Run) -> None:
    program = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
os.fork()
room = libc.mmap(None, 60000 * 4096, 1, 0x22, -1, 0)
for n in range(60000): libc.mprotect(room + n * 4096, 4096, (1, 3)[n % 2])
time.sleep(60)
"""
    marking = run(program, memory="1 GiB", wall_seconds=100, cpu_seconds=30)
    assert "made more than 52000 memory mappings" in _output(marking)


def test_data_waiting_in_connections_counts_as_memory(run: Run) -> None:
    # The kernel lets the buffers of a connection that is read fast grow to megabytes.
    program = """
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
kept, some = [], bytes(1 << 18)
def read(end):
    got = 0
    while got < 40 << 20: got += len(end.recv(1 << 20))
for _ in range(100):
    out = socket.create_connection(server.getsockname())
    into, _ = server.accept()
    kept += [out, into]
    reader = threading.Thread(target=read, args=(into,))
    reader.start()
    sent = 0
    while sent < 40 << 20: sent += out.send(some)
    reader.join()
    out.settimeout(0.1)
    try:
        while True: out.send(some)
    except TimeoutError: pass
time.sleep(60)
"""
    marking = run(program, memory="128 MiB", wall_seconds=100, cpu_seconds=60)
    assert "used more than 128 MiB of memory" in _output(marking)


def test_processes_that_share_their_memory_count_it_once(run: Run) -> None:
    program = """
import os, time
kept = bytearray(b"x") * (60 << 20)
children = [pid for _ in range(6) if (pid := os.fork()) or time.sleep(1.5) or os._exit(0)]
for pid in children: os.waitpid(pid, 0)
print("done")
"""
    marking = run(program, memory="128 MiB", wall_seconds=100, expect="done")
    assert marking.mark == 4, marking.feedback


@pytest.mark.parametrize(
    "call",
    [
        "os.memfd_create('x')",
        "ctypes.get_errno() or fail(libc.shmget(0, 1 << 30, 0o1600))",
        "fail(libc.unshare(0x10000000))",
        "fail(libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0))",
        "fail(libc.msgget(0, 0o1600))",
        "fail(libc.semget(0, 32000, 0o1600))",
        "fail(libc.mq_open(b'/x', 0o102, 0o600, None))",
        "fail(libc.vmsplice(1, None, 0, 0))",
    ],
    ids=["memfd", "shmget", "unshare", "clone", "msgget", "semget", "mq_open", "vmsplice"],
)
def test_memory_that_no_limit_counts_is_denied(run: Run, call: str) -> None:
    program = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def fail(result):
    if result == -1: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os._exit(0)
{call}
"""
    assert "Operation not permitted" in _output(run(program))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("fail(libc.inotify_init())", "Function not implemented"),
        ("fail(libc.inotify_init1(0))", "Function not implemented"),
        ("fail(libc.fanotify_init(0, 0))", "Function not implemented"),
        ("fail(libc.syscall(206 if os.uname().machine == 'x86_64' else 0, 1, 0))", "Function not implemented"),
        ("fail(libc.syscall(444, 0, 0, 0))", "Function not implemented"),
        ("os.setxattr('/tmp', 'user.x', b'x' * 60000)", "not supported"),
        ("open('f', 'w').close(); os.setxattr('f', 'system.posix_acl_access', b'x')", "not supported"),
        ("os.setxattr(os.open('f', os.O_CREAT | os.O_RDWR), 'user.x', b'x')", "not supported"),
        ("os.setxattr('/dev/shm', 'user.x', b'x', follow_symlinks=False)", "not supported"),
    ],
)
def test_kernel_objects_that_are_not_counted_appear_unsupported(run: Run, call: str, said: str) -> None:
    program = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def fail(result):
    if result == -1: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
{call}
os._exit(0)
"""
    assert said in _output(run(program))


def test_programs_do_without_watches_and_attributes_of_files(run: Run) -> None:
    program = """
import os, shutil, subprocess
open("a", "w").write("1")
shutil.copy2("a", "b")
subprocess.run(["cp", "-a", "b", "c"], check=True)
subprocess.run(["tar", "-cf", "x.tar", "a", "b", "c"], check=True)
print("copied", sorted(os.listdir()))
"""
    marking = run(program, expect="copied ['a', 'b', 'c', 'main.py', 'x.tar']")
    assert marking.mark == 4, marking.feedback


def test_the_kernel_s_tables_of_an_address_space_count_as_memory(run: Run) -> None:
    # Reading allocates no private page, but one kernel page table for each 2 MiB.
    program = """
import mmap, time
room = mmap.mmap(-1, 400 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
for place in range(0, len(room), 2 << 20): room[place]
time.sleep(60)
"""
    marking = run(program, memory="256 MiB", wall_seconds=100)
    assert "used more than 256 MiB of memory" in _output(marking)


_SOCKETS = """
import os, socket, sys, time
kept = []
def full(number):
    total = 0
    for _ in range(number):
        pair = socket.socketpair()
        kept.append(pair)
        for end in pair:
            end.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33):  # and SO_SNDBUFFORCE, SO_RCVBUFFORCE
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 24)
            try:
                while True: total += end.send(bytes(1 << 12))
            except BlockingIOError: pass
    return total
"""


def test_a_socket_s_buffers_can_not_be_made_larger(run: Run) -> None:
    program = _SOCKETS + "print('bytes', full(1))\nkept[0][0].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\n"
    marking = run(program)
    assert marking.mark == 4, marking.feedback
    assert int(_output(run(program + "sys.exit(1)")).split()[-1]) < 1 << 20


def test_data_waiting_in_sockets_counts_as_memory(run: Run) -> None:
    program = _SOCKETS + "for _ in range(3):\n    os.fork()\nfull(100)\ntime.sleep(60)\n"
    marking = run(program, memory="256 MiB", wall_seconds=100)
    assert "used more than 256 MiB of memory" in _output(marking)


_FILL = """
import os, sys
def fill(folder):
    written, number = 0, 0
    try:
        while written < 100 << 20:
            with open(f"{folder}/file{number}", "wb") as file:
                number += 1
                for _ in range(4): written += os.write(file.fileno(), bytes(1 << 18))
    except OSError as error:
        print(folder, error.strerror, file=sys.stderr)
    return written >> 20
print("home", fill(os.environ["HOME"]), "then tmp", fill("/tmp"), "shm", fill("/dev/shm"),
      "elsewhere", sum(map(fill, ("/", "/dev", "/etc", "/usr", "/rabbitry", "/rabbitry/submission", "/var", "/run"))))
"""


def test_the_disk_is_bounded_in_every_folder(run: Run) -> None:
    marking = run(_FILL, disk="8 MiB", expect="home 7 then tmp 0 shm 8 elsewhere 0")
    assert marking.mark == 4, marking.feedback
    assert "No space left" in _output(marking)


def test_one_file_is_bounded_too(run: Run) -> None:
    program = "open('x', 'wb').write(bytes(3 << 20))"
    assert "File too large" in _output(run(program, file_size="2 MiB"))


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm"])  # noqa: S108  # of the sandbox
def test_many_empty_files_are_stopped(run: Run, folder: str) -> None:
    program = f"n = 0\nwhile True:\n    open(f'{folder}/f{{n}}', 'w').close()\n    n += 1\n"
    assert "made more than 20000 files" in _output(run(program, wall_seconds=100, cpu_seconds=30))


def test_files_count_in_all_folders_together(run: Run) -> None:
    program = """
import time
for n in range(10_100):
    for folder in ("/tmp", "/dev/shm"): open(f"{folder}/f{n}", "w").close()
time.sleep(60)
"""
    assert "made more than 20000 files" in _output(run(program, wall_seconds=100, cpu_seconds=30))


@pytest.mark.parametrize("where", [1, 2])
def test_output_of_ten_gigabytes(run: Run, where: int) -> None:
    program = f"import os\nfor _ in range(10_000): os.write({where}, b'x' * (1 << 20))"
    tracemalloc.start()
    try:
        output = _output(run(program, output="1 MiB", wall_seconds=100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "printed more than 1 MiB" in output
    assert len(output) < 5000
    assert peak < 16 << 20


def test_an_endless_loop_runs_out_of_cpu_time(run: Run) -> None:
    assert "used more than 1 s of CPU time" in _output(run("while True: pass", cpu_seconds=1, wall_seconds=100))


def test_cpu_time_can_not_be_got_by_ignoring_the_signal(run: Run) -> None:
    program = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert "was ended by SIGKILL" in _output(run(program, cpu_seconds=1, wall_seconds=100))


def test_sleeping_for_ever_meets_the_wall_clock(run: Run) -> None:
    assert "ran longer than 1 s" in _output(run("import time\ntime.sleep(1e6)", wall_seconds=1))


def test_the_network_can_not_be_reached(run: Run) -> None:
    program = """
import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_UNIX, "\\0{name}"),
):
    with socket.socket(family) as connection:
        connection.settimeout(5)
        try: connection.connect(address)
        except OSError as error: print("not reached:", error)
"""
    name = f"rabbitry-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + name)
        unix.listen()
        marking = run(program.format(port=tcp.getsockname()[1], name=name), expect="not reached")
        assert _output(marking).count("not reached: ") == 3, marking.feedback
        for listener in (tcp, unix):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_address_families_that_know_no_namespaces_can_not_be_used(run: Run) -> None:
    program = """
import socket
for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_QIPCRTR, 45):
    try: socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error: print(error.strerror)
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK): socket.socket(family, socket.SOCK_DGRAM)
"""
    # A kernel without the protocol answers that the address family is not supported.
    marking = run(program, expect="\n".join(["Operation not permitted"] * 4))
    assert marking.mark == 4, marking.feedback


def test_protocols_that_are_not_counted_can_not_be_used(run: Run) -> None:
    program = """
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    for kind, protocol in ((socket.SOCK_STREAM, 262), (socket.SOCK_STREAM, 132), (6, 33)):
        try: socket.socket(family, kind, protocol)
        except OSError as error: print(error.strerror)
    for kind, protocol in ((socket.SOCK_STREAM, 0), (socket.SOCK_STREAM, 6), (socket.SOCK_DGRAM, 17)):
        socket.socket(family, kind, protocol).close()
socket.socket(socket.AF_UNIX).close()
"""
    marking = run(program, expect="\n".join(["Protocol not supported"] * 6))
    assert marking.mark == 4, marking.feedback


_SEEK = """
import os
found = 0
for folder, folders, names in os.walk("/"):
    if folder in ("/proc", "/sys") or folder.startswith({python!r}):
        folders.clear()
        continue
    for name in names:
        try: content = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK)
        except OSError: continue
        try: found += b"SECRET" + b"-{token}" in os.read(content, 1 << 16)
        except OSError: pass
        finally: os.close(content)
for process in os.listdir("/proc"):
    for name in ("environ", "cmdline", "maps", "root/etc/hostname"):
        try: found += b"SECRET" + b"-{token}" in open(f"/proc/{{process}}/{{name}}", "rb").read()
        except OSError: pass
for path in {paths!r}:
    try: found += b"SECRET" in open(path, "rb").read()
    except OSError: pass
print("found", found, "uid", os.getuid())
"""


def test_neither_the_scheme_nor_another_submission_can_be_read(
    run: Run, scheme: MakeScheme, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"SECRET-{token}"
    monkeypatch.setenv("PASSWORD", secret)
    waits = ["python3", "-c", "import time; time.sleep(300)", f"{token}-other"]
    limits = "limits = { wall_seconds = 300 }\n"
    other = scheme(f'# {secret}\n[[part]]\nname = "x"\npoints = 1\ncommand = {json.dumps(waits)}\n{limits}')
    own = tmp_path / "course" / "scheme.toml"
    seek = _SEEK.format(
        python=("/usr/", sys.prefix, sys.base_prefix), token=token, paths=[str(own), str(tmp_path / "other.py")]
    )
    (tmp_path / "other.py").write_text(secret)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(mark, other, f"# {secret}".encode(), "other.py")
        while not of_token(f"{token}-other"):
            assert not waiting.done()
        own.write_text(f"# {secret}")
        marking = run(seek + f"# of scheme {own}\n", expect="found 0 uid", wall_seconds=100, cpu_seconds=60)
        assert not waiting.done()  # the other one ran all the time
        for pid in of_token(f"{token}-other"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert marking.mark == 4, marking.feedback
    if os.geteuid() == 0:
        assert "uid 19" in _output(run("import os; print('uid', os.getuid()); raise SystemExit(1)"))


_DAEMON = """
import os, signal, sys, time
for number in range(1, 64):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0)
        print("the daemon runs", flush=True)
        {close}
        time.sleep(600)
    os._exit(0)
time.sleep(0.5)
"""


@pytest.mark.parametrize("close", ["pass", "os.close(1); os.close(2)"], ids=["holds its output", "closed all"])
def test_a_daemon_does_not_outlive_its_part(run: Run, token: str, close: str) -> None:
    marking = run(_DAEMON.format(close=close), expect="the daemon runs", wall_seconds=60)
    assert marking.mark == 4, marking.feedback
    assert of_token(token) == []


def test_printed_control_characters_are_replaced(run: Run) -> None:
    program = "print('\\x1b[2J\\x00\\u202eevil\\u2028', end=''); raise SystemExit(1)"
    assert "\N{REPLACEMENT CHARACTER}[2J" in _output(run(program))
    assert _output(run(program)).isprintable() is False  # the end of the line
    assert not set("\x1b\x00\u202e\u2028") & set(_output(run(program)))


def test_a_refused_archive_runs_nothing(scheme: MakeScheme) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../main.py", "print(1)")
    checked = scheme('[[part]]\nname = "x"\npoints = 1\ncommand = "true"\n')
    with pytest.raises(SubmissionRefused, match=r"a name with `\.\.`"):
        mark(checked, packed.getvalue(), "homework.zip")


def test_an_archive_as_large_as_it_may_be_fits_into_the_sandbox(scheme: MakeScheme) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large", bytes(31 << 20))
    checked = scheme('[[part]]\nname = "x"\npoints = 1\ncommand = "test $(stat -c %s large) = 32505856"\n')
    assert mark(checked, packed.getvalue(), "homework.zip").mark == 1


def _is_python(pid: int) -> bool:
    try:
        return psutil.Process(pid).cmdline()[:1] == ["python3"]
    except psutil.NoSuchProcess:  # the program that starts the submission has ended meanwhile
        return False


def test_when_the_marking_process_is_killed_nothing_of_a_submission_runs_on(
    scheme: MakeScheme, token: str, tmp_path: Path
) -> None:
    scheme(f'[[part]]\nname = "x"\npoints = 1\ncommand = ["python3", "main.py", "{token}"]\n')
    code = """
import sys, tempfile
from pathlib import Path
from rabbitry.apps.grading.marking import load_scheme, mark
tempfile.tempdir = sys.argv[1]
mark(load_scheme(Path(sys.argv[2])), b"import time; time.sleep(600)", "main.py")
"""
    marker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(tmp_path / "course" / "scheme.toml")])
    try:
        # Wait until the submission itself runs, not only the program that starts it.
        while not any(_is_python(pid) for pid in of_token(token)):
            assert marker.poll() is None
    finally:
        marker.kill()
        marker.wait(20)
    while of_token(token):  # the test's own time limit bounds it
        pass
