"""A broker for the tests of programs in other languages: `python -m rabbitry.testing`.

Prints the broker's URL, and runs until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
from pathlib import Path

from rabbitry._words import reason
from rabbitry.broker.compat import RELEASES
from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.interrupt import SIGNALS
from rabbitry.testing._broker import RunningBroker

_EXAMPLE = """
example, in a shell:
  python -m rabbitry.testing > broker.url & until [ -s broker.url ]; do sleep 0.1; done
  AMQP_URL=$(cat broker.url) npm test; kill $!
"""


def main() -> int:
    """Run a broker until the process is told to end. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rabbitry.testing",
        description="Run an empty broker on 127.0.0.1 for tests, and print its URL. SIGINT or SIGTERM ends it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="the AMQP port; a free one if it is not given")
    parser.add_argument("--vhost", action="append", metavar="NAME", help="a virtual host; may be given several times")
    parser.add_argument("--definitions", type=Path, metavar="FILE", help="declare what this file of definitions says")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep what is durable in this folder")
    parser.add_argument(
        "--compat", choices=list(RELEASES), default="3.10", help="the RabbitMQ whose behaviour it has; 3.10 by default"
    )
    parser.add_argument(
        "--tls", action="store_true", help="listen for TLS too; print its URL and a file with its authority"
    )
    parser.add_argument("--management", action="store_true", help="serve the management API too; print its URL")
    parser.add_argument("--json", action="store_true", help="print a JSON object in place of lines")
    options = parser.parse_args()
    # Before the broker begins: a signal while it starts ends it once it has started.
    came, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    try:
        with RunningBroker(
            port=options.port,
            vhosts=options.vhost or ["/"],
            definitions=options.definitions,
            data=options.data,
            tls=options.tls,
            compat=options.compat,
        ) as broker:
            urls = _urls(broker, options)
            print(json.dumps(urls) if options.json else "\n".join(urls.values()), flush=True)
            came.recv(1)  # whatever thread gets the signal; Windows has no sigwait
    except (RabbitryError, OSError) as error:
        print(f"python -m rabbitry.testing: {reason(error, is_named=False)}", file=sys.stderr)
        return 1
    return 0


def _urls(broker: RunningBroker, options: argparse.Namespace) -> dict[str, str]:
    urls = {"url": broker.url}
    if options.tls:
        urls |= {"tls_url": broker.tls_url, "ca_file": str(broker.ca_file)}
    if options.management:
        urls["management_url"] = broker.management_url
    return urls


if __name__ == "__main__":
    sys.exit(main())
