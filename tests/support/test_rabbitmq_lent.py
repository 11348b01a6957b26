"""Lent servers: what happens to one whose holder was killed."""

import signal
import subprocess
from pathlib import Path

from tests.support import rabbitmq_lent, shared
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import WITHIN


def test_a_server_that_was_restarted_by_a_killed_holder_is_ended_and_not_lent_again(tmp_path: Path) -> None:
    server = RabbitMQ()  # its note has no process, as it would have an old one; another program plays the new one
    restarted = subprocess.Popen(["sleep", "600"], cwd=server.directory)
    note = tmp_path / "lent-1-1"
    shared.write(note, rabbitmq_lent._Note(server, is_lent=True))
    assert rabbitmq_lent._emptied(note) is None
    assert restarted.wait(WITHIN) == -signal.SIGKILL
    assert not server.directory.exists()
    assert list(tmp_path.iterdir()) == []
