"""How services end: by signals, in time or at once."""

import subprocess
import sys
from typing import Final

import pytest

_ENDING: Final = """
import asyncio, os, signal, threading, time
from rabbitry.runtime.service import run_service

async def service(stop):
    os.kill(os.getpid(), signal.SIGINT)
    await stop.wait()
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 120)  # which closing the loop waits for
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    return 0

run_service(service)
"""


def test_a_second_signal_ends_a_stopping_service_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDING], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (130, "")


_AT_EACH_LINE: Final = """
import os, signal, sys
from rabbitry.runtime.io_thread import new_event_loop
from rabbitry.runtime.interrupt import Interrupted, raise_when_interrupted
from rabbitry.runtime.service import run_service

def end_at(line, new_loop):
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if event == "line" and frame.f_code.co_filename.endswith(("runners.py", "events.py", "service.py")):
            lines += 1
            if lines == line:
                sys.settrace(None)
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    async def service(stop):
        if lines < line:
            os._exit(7)
        await stop.wait()
        return 0

    signal.alarm(60)
    raise_when_interrupted()
    sys.settrace(trace)
    try:
        os._exit(run_service(service, new_loop=new_loop))
    except Interrupted:
        os._exit(0)

line = code = 0
while code == 0:
    line += 1
    child = os.fork()
    if not child:
        end_at(line, LOOP)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(line, code)
"""


@pytest.mark.parametrize("loop", ["None", "new_event_loop"])
def test_a_signal_at_any_line_of_the_start_ends_a_service(loop: str) -> None:
    program = _AT_EACH_LINE.replace("LOOP", loop)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False)
    lines, code = (int(word) for word in done.stdout.split())
    assert code == 7, f"lost at line {lines}: {done.stderr}"  # 7: the service ran before that line
    assert lines > 20


_HALF_MADE: Final = """
import os, signal
from rabbitry.runtime.interrupt import Interrupted, raise_when_interrupted

class Half:
    def __init__(self, is_interrupted):
        if is_interrupted:
            os.kill(os.getpid(), signal.SIGINT)
    def __del__(self):
        self.missing

raise_when_interrupted()
try:
    Half(INTERRUPTED)
except Interrupted:
    pass
"""


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_objects_left_half_made_by_a_signal_print_no_error(is_interrupted: bool) -> None:
    program = _HALF_MADE.replace("INTERRUPTED", str(is_interrupted))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0
    assert ("missing" in done.stderr) is not is_interrupted


_TO_ANOTHER_THREAD: Final = """
import os, signal, threading
from rabbitry.runtime.io_thread import new_event_loop
from rabbitry.runtime.interrupt import SIGNALS
from rabbitry.runtime.service import run_service

async def service(stop):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # in this thread
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    return 0

raise SystemExit(run_service(service, new_loop=LOOP))
"""


@pytest.mark.parametrize("loop", ["None", "new_event_loop"])
def test_a_signal_that_another_thread_gets_ends_an_idle_service(loop: str) -> None:
    program = _TO_ANOTHER_THREAD.replace("LOOP", loop)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_FROZEN: Final = """
import asyncio, gc
from rabbitry.runtime.service import run_service

async def service(stop):
    print(any(found is asyncio.Runner for found in gc.get_objects()))
    return 0

run_service(service)
"""


def test_what_is_imported_is_out_of_the_garbage_collector_s_sight() -> None:
    done = subprocess.run([sys.executable, "-c", _FROZEN], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.strip() == "False"
