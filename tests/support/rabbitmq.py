"""A private RabbitMQ server for tests, which shares nothing with any other on the machine.

It has its own folder, ports, Erlang cookie and port mapper (epmd), listens on 127.0.0.1 alone, and
is ended by its own process id. By hand: `.venv/bin/python -m tests.support.rabbitmq [--management]`.

RABBITRY_RABBITMQ_ROOT names a folder with another system in which a RabbitMQ is installed (scripts/rabbitmq-4 makes
one); it is then that one which runs.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import quote

from rabbitry.broker.compat import Compat
from tests.support.ports import free_port

ROOT = Path(os.environ.get("RABBITRY_RABBITMQ_ROOT", "/"))
_BIN = Path("/usr/lib/rabbitmq/bin")
COMPAT: Compat = "4.0" if any(ROOT.glob("usr/lib/rabbitmq/lib/rabbitmq_server-4.*")) else "3.10"
"""What the embedded broker is to behave like where it is compared with this RabbitMQ."""
_INTO_ROOT = () if Path("/") == ROOT else ("chroot", str(ROOT))
_START_DEADLINE = 120.0
_CONNECT_DEADLINE = 90.0
_STOP_DEADLINE = 90.0
_PROBE = 10.0

# First it waits for the connections that have just been closed, up to a second. An exclusive queue may still be deleted
# by itself after that: deleting it, too, may fail.
_EMPTYING = """
    Gone = fun Again(0) -> false;
               Again(Left) -> rabbit_connection_tracking:list(VHOST) == []
                   orelse (ok == timer:sleep(10) andalso Again(Left - 1)) end,
    IsOurs = fun(Exchange) -> Name = element(4, element(2, Exchange)),
                 Name == <<>> orelse lists:prefix("amq.", binary_to_list(Name)) end,
    try Gone(100) andalso begin
        [rabbit_amqqueue:delete(Queue, false, false, <<"tests">>) || Queue <- rabbit_amqqueue:list(VHOST)],
        [rabbit_exchange:delete(element(2, Exchange), false, <<"tests">>)
            || Exchange <- rabbit_exchange:list(VHOST), not IsOurs(Exchange)],
        [] == rabbit_amqqueue:list(VHOST) ++ rabbit_binding:list(VHOST) ++ rabbit_policy:list(VHOST)
            ++ rabbit_policy:list_op(VHOST) ++ rabbit_runtime_parameters:list(VHOST)
            ++ rabbit_auth_backend_internal:list_vhost_topic_permissions(VHOST)
            ++ [Exchange || Exchange <- rabbit_exchange:list(VHOST), not IsOurs(Exchange)]
            andalso [[proplists:get_value(What, One) || What <- [user, configure, write, read]]
                || One <- rabbit_auth_backend_internal:list_vhost_permissions(VHOST)]
                == [[<<"guest">>, <<".*">>, <<".*">>, <<".*">>]]
    end catch _:_ -> false end.
"""


def why_missing() -> str | None:
    """Why no RabbitMQ can be started here, or None when it can."""
    if not (ROOT / _BIN.relative_to("/") / "rabbitmq-server").exists():
        return f"rabbitmq-server is not installed in {ROOT} (as root: scripts/system-deps)"
    return None


class Process(Protocol):
    """What is used here of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Return None while it runs."""

    def wait(self, timeout: float = ...) -> int:
        """Wait for its end."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


Spawn = Callable[[list[str], Mapping[str, str], int, str | None], Process]
"""Starts a command with an environment, a descriptor for its output, and its folder."""


def _spawn(command: list[str], environment: Mapping[str, str], output: int, cwd: str | None) -> Process:
    """Start a server in a session of its own (a Ctrl-C is not for it) that ends when this process does."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd, start_new_session=True,
    )  # fmt: skip


class Epmd:
    """Erlang's port mapper, which tells nodes of each other's ports; one for each cluster of nodes."""

    def __init__(self, spawn: Spawn = _spawn) -> None:
        self.port = free_port()
        self.environment = {"ERL_EPMD_PORT": str(self.port), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self._spawn = spawn
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers; does nothing if it is running."""
        if self._process is None:
            with open(os.devnull, "wb") as nowhere:
                self._process = self._spawn(
                    [*_INTO_ROOT, "epmd"], os.environ | self.environment, nowhere.fileno(), None
                )
            _wait_until(lambda: _accepts(self.port), "epmd", self._process)

    def stop(self) -> None:
        """End it; nodes that run go on, but cannot be found any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RabbitMQ:
    """One RabbitMQ node. Use it as a context manager, or call `start` and at last `close`.

    `management` turns on the management plugin (a second more at the start). Nodes that shall see
    each other get the same `epmd` and `cookie`. `settings` are further lines of rabbitmq.conf. All methods block.

    is_thrifty: it has one thread of each kind, so that none wakes another for each message between its processes and
    each access to a file, and logs errors alone. To make a virtual host with a queue, use
    and delete it then takes 27 ms of CPU, not 50. Benchmarks leave it as it comes.
    """

    def __init__(
        self,
        *,
        management: bool = False,
        is_thrifty: bool = False,
        epmd: Epmd | None = None,
        cookie: str | None = None,
        settings: Sequence[str] = (),
        plugins: Sequence[str] = (),
        spawn: Spawn = _spawn,
    ) -> None:
        self.port = free_port()
        self.directory = Path(
            tempfile.mkdtemp(prefix="rabbitry-rabbitmq-", dir=None if Path("/") == ROOT else ROOT / "tmp")
        )
        self.node = f"rabbitry-{self.port}@localhost"
        self.log = self.directory / "server.log"
        self.management_url = f"http://127.0.0.1:{free_port()}/" if management else None
        self._is_thrifty = is_thrifty
        self._epmd = epmd or Epmd(spawn)
        self._owns_epmd = epmd is None
        self._settings = tuple(settings)
        self._plugins = tuple(plugins)
        self._cookie = cookie or secrets.token_hex(16)
        self._spawn = spawn
        self._process: Process | None = None
        self._distribution_port = free_port()
        self._write_files()

    @property
    def url(self) -> str:
        """The URL of the virtual host "/", with the login guest:guest."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The URL of a virtual host, with the login guest:guest."""
        name = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    @staticmethod
    def own_view(path: Path) -> Path:
        """A path as the server sees it."""
        return Path("/") / path.relative_to(ROOT)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and wait until it accepts AMQP connections; with the data it had before.

        Raises RuntimeError with the end of its log when it ends or does not answer within two minutes.
        """
        if self._process is not None:
            raise RuntimeError(f"{self.node} runs already")
        self._epmd.start()
        with self.log.open("ab") as log:
            command = [*_INTO_ROOT, str(_BIN / "rabbitmq-server")]
            self._process = self._spawn(command, self._environment(), log.fileno(), str(self.directory))
        try:
            _wait_until(self.is_ready, self.node, self._process, self.log)
            self.eval("persistent_term:put(settings_of_tests, application:get_all_env(rabbit)).")
        except BaseException:
            self.kill()
            raise

    def reset(self) -> None:
        """Make the running server as empty as a new one: no data, users and policies, and the settings as at its start.

        It takes a fifth of the CPU of starting one. Raises RuntimeError where it does not succeed.
        """
        self.eval(
            "ok = rabbit:stop(), ok = rabbit_mnesia:reset(),"
            " [application:unset_env(rabbit, Name) || {Name, _} <- application:get_all_env(rabbit)],"
            " [application:set_env(rabbit, Name, Value) || {Name, Value} <- persistent_term:get(settings_of_tests)],"
            " ok = rabbit:start()."
        )
        _wait_until(self.is_ready, self.node, self._running(), self.log)

    def stop(self) -> None:
        """Shut the server down in order (SIGTERM); its data stay for the next `start`."""
        process = self._running()
        process.terminate()
        process.wait(_STOP_DEADLINE)
        self._process = None

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a power cut would; its data stay for the next `start`."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop the process (SIGSTOP): it keeps its sockets and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything that was started and delete the folder."""
        if self._process is not None:
            self.kill()
        if self._owns_epmd:
            self._epmd.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def eval(self, expressions: str) -> str:
        """Evaluate Erlang in the server (some 10 ms, a hundredth of `ctl`) and return the result.

        `expressions` end with a full stop. Raises RuntimeError when it fails.
        """
        answer = self._call(expressions)
        deadline = time.monotonic() + _CONNECT_DEADLINE
        # Nothing was evaluated: erl_call gives up early on a busy machine.
        while "failed to connect to node" in answer and self._running().poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            answer = self._call(expressions)
        if not answer.startswith("{ok,"):
            raise RuntimeError(f"{self.node}: {expressions} gave {answer}")
        return answer[len("{ok, ") : -1]

    def _call(self, expressions: str) -> str:
        done = subprocess.run(
            [*_INTO_ROOT, "erl_call", "-sname", self.node, "-c", self._cookie, "-e"],
            input=expressions.encode() + b"\n", env=os.environ | self._epmd.environment,
            capture_output=True, timeout=_STOP_DEADLINE, check=False,
        )  # fmt: skip
        answer = done.stdout.decode(errors="replace")
        return answer if done.returncode == 0 else f"error: {answer}{done.stderr.decode(errors='replace')}"

    def ctl(self, *arguments: str, tool: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl (about a second) or another tool; return what it prints. Raises CalledProcessError."""
        return subprocess.run(
            [*_INTO_ROOT, str(_BIN / tool), "-n", self.node, "-q", *arguments],
            env=self._environment(), capture_output=True, text=True, timeout=2 * _START_DEADLINE, check=True,
        ).stdout  # fmt: skip

    def add_vhost(self, name: str) -> str:
        """Create a virtual host that guest may use, and return its URL."""
        self.eval(f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>), {_permitting("guest", (), name)}.')
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host and all in it; connections to it are closed with 320."""
        self.eval(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>).')

    def empty_vhost(self, name: str) -> bool:
        """Delete what is in a virtual host, which takes a third of the CPU of deleting it and making another.

        Return whether it is as new. It is not if a connection to it stays open, policies, limits or other permissions
        than `add_vhost` gives were set, or something in it can't be deleted.
        """
        return self.eval(_EMPTYING.replace("VHOST", f'<<"{name}">>')) == "true"

    def add_user(self, name: str, password: str) -> None:
        """Create a user without permissions."""
        self.eval(f'ok = rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"tests">>).')

    def delete_user(self, name: str) -> None:
        """Delete a user."""
        self.eval(f'ok = rabbit_auth_backend_internal:delete_user(<<"{name}">>, <<"tests">>).')

    def set_permissions(self, user: str, *permissions: str, vhost: str = "/") -> None:
        """Set a user's configure, write and read permissions, as regular expressions; by default everything."""
        self.eval(f"{_permitting(user, permissions, vhost)}.")

    def __enter__(self) -> "RabbitMQ":
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

    def is_ready(self) -> bool:
        """Return whether it accepts connections on all its ports."""
        # It opens one listener after the other, those of TLS last.
        more = [line.rpartition(" ")[2].rpartition(":") for line in self._settings if line.startswith("listeners.")]
        return _speaks_amqp(self.port) and all(_accepts(int(port), host) for host, _, port in more)

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.node} does not run")
        return self._process

    def _write_files(self) -> None:
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        plugins = [*(["rabbitmq_management"] if self.management_url else []), *self._plugins]
        (self.directory / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (self.directory / "environment").write_text("")
        settings = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            # A test machine may be short of disk and memory; alarms are raised by tests, not by chance.
            "disk_free_limit.absolute = 1MB",
            "vm_memory_high_watermark.relative = 0.8",
            # Otherwise the name of the machine, which the server tells every client.
            "cluster_name = rabbitry-tests",
            "log.console = true",
            f"log.console.level = {'error' if self._is_thrifty else 'info'}",
            "log.file = false",
        ]
        if self.management_url:
            port = self.management_url.rsplit(":", 1)[1].rstrip("/")
            settings += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {port}"]
            # Tests wait for figures that are else 5 s old. A rate needs two samples, which are 5 s apart by default,
            # and figures that come more often than samples read as 0.0 most of the time: both are once a second.
            settings.append("collect_statistics_interval = 1000")
            settings += [
                f"management.sample_retention_policies.{kind}.minute = 1" for kind in ("global", "basic", "detailed")
            ]
        settings += self._settings
        (self.directory / "rabbitmq.conf").write_text("\n".join(settings) + "\n")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
        folder = self.own_view(self.directory)
        threads = "+S 1:1 +SDcpu 1:1 +SDio 1" if self._is_thrifty else "+S 2:2"
        return (
            kept
            | self._epmd.environment
            | {
                "HOME": str(folder),
                # Makes the start script turn into the server instead of watching over it, so that our
                # signals and our process id are the server's own.
                "detached": "yes",
                "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
                "RABBITMQ_NODENAME": self.node,
                "RABBITMQ_DIST_PORT": str(self._distribution_port),
                "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
                "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
                "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
                "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
                "RABBITMQ_MNESIA_BASE": str(folder / "data"),
                "RABBITMQ_LOG_BASE": str(folder / "log"),
                "RABBITMQ_PID_FILE": str(folder / "pid"),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{threads} +B i",
            }
        )


def _permitting(user: str, permissions: Sequence[str], vhost: str) -> str:
    """Return the Erlang that sets a user's permissions."""
    rights = ", ".join(f'<<"{pattern}">>' for pattern in permissions or (".*", ".*", ".*"))
    return f'ok = rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, {rights}, <<"tests">>)'


def _wait_until(ready: Callable[[], bool], name: str, process: Process, log: Path | None = None) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while not ready():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-3000:] if log else ""
            what = f"ended with {code}" if code is not None else f"was not ready after {_START_DEADLINE} s"
            raise RuntimeError(f"{name} {what}\n{tail}")
        time.sleep(0.02)


def _accepts(port: int, host: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_PROBE):
        return True
    return False


def _speaks_amqp(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_PROBE) as probe:
        probe.sendall(b"AMQP\x00\x00\x09\x01")
        return probe.recv(1) == b"\x01"
    return False


def main() -> None:
    """Start a server, print where it is, and end it on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A private RabbitMQ for trying things out.")
    parser.add_argument("--management", action="store_true", help="with the management plugin")
    arguments = parser.parse_args()
    if reason := why_missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), RabbitMQ(management=arguments.management) as server:
        print("rabbitmq ready", server.url, server.management_url or "", flush=True)
        print(f"log {server.log}", file=sys.stderr)
        signal.pause()


if __name__ == "__main__":
    main()
