"""How services end: by signals, in time or at once."""

import subprocess
import sys
from typing import Final

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


def test_a_second_signal_ends_at_once_also_what_is_ending() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDING], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (130, "")
