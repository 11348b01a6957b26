"""The command line of `rabbitry monitor`: spellings of the broker, and bad input."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry.amqp.client import parse_url
from tests.apps.monitor.program import Program
from tests.apps.monitor.test_client import publishing, sample
from tests.apps.monitor.wire import as_options
from tests.support.ports import free_port

PUBLISH = ["monitor", "publish", "--connect-attempts", "1"]
STATS = ["monitor", "stats", "-k", "pi-1"]
both = pytest.mark.parametrize("command", [PUBLISH, STATS], ids=["publish", "stats"])


def ends_with(code: int, line: str, folder: Path, *arguments: str, **environment: str) -> None:
    """Run a command; check that it ends with `code` and one line on stderr."""
    with Program(folder, *arguments, **environment) as program:
        assert program.wait() == code, program
        assert re.fullmatch(f"rabbitry: {line}\n", program.err), program
        assert program.out == ""


def listens(client: Program, url: str) -> None:
    """Wait until `rabbitry monitor stats` is connected and counts."""
    with publishing(url) as publisher:
        publisher.wait_for_listener("pi-1", sample(0.5))
        client.wait_for("pi-1 cpu 0.5")


@both
def test_a_refused_login_ends_with_3_and_one_line(broker_url: str, tmp_path: Path, command: list[str]) -> None:
    options = [*as_options(broker_url), "-c", "guest"]
    ends_with(3, ".*refused the login of user 'guest'.*", tmp_path, *command, *options, RABBITMQ_PASSWORD="not-the-one")


@both
def test_an_unknown_vhost_ends_with_3_and_one_line(broker_url: str, tmp_path: Path, command: list[str]) -> None:
    ends_with(3, ".*virtual host 'nowhere'.*", tmp_path, *command, *as_options(broker_url), "-p", "nowhere")


@both
def test_a_port_or_host_that_does_not_answer_ends_with_3(tmp_path: Path, command: list[str]) -> None:
    port = free_port()
    ends_with(3, f"no broker at 127.0.0.1:{port}: .*", tmp_path, *command, "-b", f"127.0.0.1:{port}")
    ends_with(3, "no broker at no.such.host.invalid:5672: .*", tmp_path, *command, "-b", "no.such.host.invalid")


@both
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--broker", "http://x"], ".*amqp://.*"),
        (["-b", "host:port"], ".*port.*1 to 65535.*"),
        (["-b", "guest:guest@host"], "-b takes HOST.*"),
        (["-b", "host/vhost"], "-b takes HOST.*"),
        (["-b", "host", "--broker", "amqp://other"], "-b and --broker both.*"),
        (["-b", "host", "-c", "alice"], "missing password for user .alice.: set RABBITMQ_PASSWORD.*"),
        (["-b", "host", "-c", "alice", "--password-file", "missing"], "the password file missing.*"),
        (["-b", "host", "-k", "x" * 256], "a routing key has 1 to 255 bytes"),
        (["-b", "host", "-k", ""], "a routing key has 1 to 255 bytes"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    tmp_path: Path, command: list[str], options: list[str], line: str
) -> None:
    ends_with(2, line, tmp_path, *command, *options)


@both
def test_without_a_named_broker_this_machines_is_used(tmp_path: Path, command: list[str]) -> None:
    # The command ends whether no broker listens on the default port or it lacks this virtual host.
    place = r"(127\.0\.0\.1:5672|virtual host 'no-such-place')"
    ends_with(3, f".*{place}.*", tmp_path, *command, "-p", "no-such-place")


def test_statistics_without_a_key_are_wrong_usage(tmp_path: Path) -> None:
    ends_with(2, "which machines.*-k KEY.*", tmp_path, "monitor", "stats", "-b", "host")


def test_a_malformed_env_file_ends_with_2_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RABBITMQ_HOST=x\nwhat is this\n")
    ends_with(2, r"\.env, line 2: 'what is this' is not KEY=VALUE", tmp_path, *PUBLISH)


def test_the_publisher_takes_its_broker_from_the_env_file(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "my.env").write_text(f"RABBITMQ_HOST=127.0.0.1\nRABBITMQ_PORT={port}\n")
    ends_with(3, f"no broker at 127.0.0.1:{port}: .*", tmp_path, *PUBLISH, "--env-file", "my.env")


def test_a_password_in_c_works_with_one_warning(broker_url: str, tmp_path: Path) -> None:
    parsed = parse_url(broker_url)
    options = [*as_options(broker_url), "-c", f"{parsed.user}:{parsed.password}"]
    with Program(tmp_path, *STATS, *options) as client:
        listens(client, broker_url)
        assert client.end() == 0
        warnings = [line for line in client.err.splitlines() if "password" in line]
    assert len(warnings) == 1
    assert "RABBITMQ_PASSWORD" in warnings[0]
    assert f"{parsed.user}:{parsed.password}" not in client.err


def test_the_password_comes_from_a_file(broker_url: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{parse_url(broker_url).password}\nsecond line\n")
    file.chmod(stat.S_IRUSR)
    options = [*as_options(broker_url), "-c", "guest", "--password-file", str(file)]
    with Program(tmp_path, *STATS, *options) as client:
        listens(client, broker_url)
        assert client.end() == 0
        assert "password" not in client.err


def test_p_and_c_refine_a_broker_of_the_environment(broker_url: str, tmp_path: Path) -> None:
    parsed = parse_url(broker_url)
    [(host, port)] = parsed.hosts
    url = f"amqp://nobody:nothing@{host}:{port}/nowhere"
    options = ["-p", parsed.virtual_host, "-c", "guest"]
    with Program(tmp_path, *STATS, *options, url=url, RABBITMQ_PASSWORD=parsed.password) as client:
        listens(client, broker_url)
        assert client.end() == 0


@both
def test_help_shows_the_contracts_options(tmp_path: Path, command: list[str]) -> None:
    with Program(tmp_path, *command[:2], "--help") as program:
        assert program.wait() == 0
    for option in ("-b HOST[:PORT]", "-p VHOST", "-c LOGIN[:PASSWORD]", "-k KEY", "--broker URL"):
        assert option in program.out


def test_a_closed_output_is_not_an_error(broker_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rabbitry", *STATS, *as_options(broker_url)]
    with (
        publishing(broker_url) as publisher,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as client,
    ):
        assert client.stdout is not None
        assert client.stderr is not None
        try:
            publisher.wait_for_listener("pi-1", sample(0.5))
            client.stdout.readline()
            client.stdout.close()
            publisher.publish("pi-1", sample(0.5))
            publisher.publish("pi-1", sample(0.5))
            assert client.wait(90) == 0
            assert len(client.stderr.read().splitlines()) == 1  # the line that it is connected
        finally:
            client.kill()
