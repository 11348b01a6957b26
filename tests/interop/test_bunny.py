"""bunny, the Ruby client: a program of its own gets the same from both brokers."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.programs import require

_PROGRAM: Final = Path(__file__).with_name("bunny.rb")
_DEADLINE: Final = 120.0
_PRINTED: Final = """\
connected to RabbitMQ
a name from the broker: true
all confirmed: true
depths: 2 2
got one false key m1 {"n"=>1, "nested"=>{"a"=>[1, "b"]}}
got again one true
got two text/plain 1700000000
empty: [nil, nil, nil]
consumed three four
cancelled by the broker: true
returned [312, "NO_ROUTE", "lost"]
stream [0, "0"] [1, "1"] [2, "2"]
after the transaction: 1
another type: Bunny::PreconditionFailed
another argument: Bunny::PreconditionFailed
a missing queue: Bunny::NotFound
closed: true
"""


def _why_missing() -> str | None:
    try:
        done = subprocess.run(["ruby", "-e", "require 'bunny'"], capture_output=True, check=False, timeout=_DEADLINE)
    except FileNotFoundError:
        return "ruby is not installed (as root: scripts/system-deps)"
    return "bunny is not installed (as root: scripts/system-deps)" if done.returncode else None


def test_a_program_of_bunnys_gets_the_same_from_both_brokers(broker_url: str) -> None:
    require(_why_missing())
    url = (
        f"{broker_url}%2f" if broker_url.endswith("/") else broker_url
    )  # bunny reads "/" as a virtual host without a name
    done = subprocess.run(["ruby", str(_PROGRAM), url], capture_output=True, text=True, check=False, timeout=_DEADLINE)
    assert (done.returncode, done.stdout) == (0, _PRINTED), done.stderr
