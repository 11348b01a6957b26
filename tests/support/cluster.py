"""A cluster of RabbitMQ nodes on one machine: own names, ports and folders, one cookie, one port mapper.

By hand: `.venv/bin/python -m tests.support.cluster`.
"""

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Final, Self

from tests.support.rabbitmq import Epmd, RabbitMQ, why_missing

_DEADLINE: Final = 90.0
_TICK: Final = 8
"""Seconds after which a silent node counts as down (Erlang's net_ticktime); 60 by default."""


class Cluster:
    """Nodes that know each other. A context manager; all methods block.

    nodes: to be killed, paused and started as a single one is. A node that was paused for longer than the tick finds
    itself apart from the others, and starts anew by itself (autoheal; pause_minority overlooks a partition that
    is over when it is noticed).
    """

    def __init__(self, size: int = 3) -> None:
        self._epmd = Epmd()
        cookie = secrets.token_hex(16)
        settings = ("cluster_partition_handling = autoheal",)
        self.nodes = [RabbitMQ(is_thrifty=True, epmd=self._epmd, cookie=cookie, settings=settings) for _ in range(size)]
        for node in self.nodes:
            (node.directory / "advanced.config").write_text(f"[{{kernel, [{{net_ticktime, {_TICK}}}]}}].\n")

    @property
    def url(self) -> str:
        """URL that names the hosts of all nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def start(self) -> None:
        """Start all nodes and join them to the first. Raises RuntimeError if one does not start."""
        self._epmd.start()
        first, *others = self.nodes
        first.start()
        for node in others:
            node.start()
            node.eval(f"rabbit:stop(), ok = rabbit_mnesia:join_cluster('{first.node}', disc), rabbit:start().")
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until every node sees all the others, and every quorum queue has a member that runs on each.

        Raises TimeoutError with what was seen last.
        """
        deadline = time.monotonic() + _DEADLINE
        while True:
            seen = [self._seen_by(node) for node in self.nodes]
            if all(text == f"{{{len(self.nodes)}, true}}" for text in seen):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster is not whole after {_DEADLINE:g} s: {seen}")
            time.sleep(0.2)

    def _seen_by(self, node: RabbitMQ) -> str:
        """How many nodes run as one of them sees it, and whether its quorum queues' members here all run."""
        try:
            return node.eval(
                "{length(rabbit_nodes:all_running()),"
                " lists:all(fun (Q) -> {Name, _} = amqqueue:get_pid(Q), is_pid(whereis(Name)) end,"
                " [Q || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue])}."
            ).strip()
        except (RuntimeError, subprocess.TimeoutExpired) as error:  # it is starting, or waits for the others
            return str(error)

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()
        self._epmd.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Start a cluster of three, print where it is, and end it on Ctrl-C or SIGTERM."""
    if reason := why_missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Cluster() as cluster:
        print("cluster ready", cluster.url, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
