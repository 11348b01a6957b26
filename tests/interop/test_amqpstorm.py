"""AMQPStorm's own functional tests, unchanged, against both brokers: each test has the same result.

pip fetches its source distribution, which alone has them, once into pytest's cache. They need the standard ports:
each broker listens on its own address of 127.0.0.0/8. Tests that use a server of AMQPStorm's author fail on both
brokers and count as equal.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest
import trustme
from cryptography import x509

from rabbitry.broker import Broker, BrokerConfig
from tests.support import programs, rabbitmq
from tests.support.rabbitmq import RabbitMQ

_VERSION: Final = "3.1.4"
_SHA256: Final = "8c4c81430b3e3f06c88474a8ed883b48a62068f14490e339d6e0fc3329f030d3"
_SUITE: Final = "amqpstorm/tests/functional"
_QUICK: Final = tuple(
    f"{_SUITE}/{name}" for name in ("test_basic.py", "test_exchange.py", "test_queue.py", "test_tx.py")
)
_ELSEWHERE: Final = f"{_SUITE}/management/test_api.py::ApiFunctionalTests::test_api_with_inaccessible"
"""A test that connects to an address of its author's network, where anything may answer."""
_TIMES: Final = 4
"""How often differing tests are repeated: they wait for fixed times, too short on a busy machine."""
_DOWNLOAD_WITHIN: Final = 200.0
_RUN_WITHIN: Final = 400.0

DIFFERENT: Final[dict[str, str]] = {}
"""Tests with different results on the embedded broker, with the reason."""


@pytest.fixture(scope="module")
def suite(request: pytest.FixtureRequest) -> Path:
    """AMQPStorm's source distribution, unpacked."""
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("amqpstorm")
    archive = folder / f"amqpstorm-{_VERSION}.tar.gz"
    if not archive.exists():
        try:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                 "--dest", str(folder), f"amqpstorm=={_VERSION}"],
                capture_output=True, text=True, timeout=_DOWNLOAD_WITHIN, check=True,
            )  # fmt: skip
        except (
            subprocess.CalledProcessError,
            subprocess.TimeoutExpired,
        ) as error:  # even if the package index does not answer at all
            programs.require(f"pip could not fetch amqpstorm's source distribution: {error} {error.stderr!r:.500}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == _SHA256
    with tarfile.open(archive) as packed:
        packed.extractall(folder)  # noqa: S202 - its checksum is known
    return folder / archive.name.removesuffix(".tar.gz")


@dataclass(frozen=True)
class _Keys:
    """A server certificate for each address, and files for the clients."""

    folder: Path
    authority: trustme.CA
    user: str
    """The subject of the clients' certificate, as a broker spells it for EXTERNAL."""

    def server(self, host: str) -> tuple[Path, Path]:
        """Return the paths of a server's certificate and key."""
        certificate, chain, key = self.authority.issue_cert(host), self.folder / f"{host}.pem", self.folder / host
        certificate.cert_chain_pems[0].write_to_path(chain)
        certificate.private_key_pem.write_to_path(key)
        return chain, key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> _Keys:
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    client = authority.issue_cert("client@example.org", common_name="client")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    certificate = x509.load_pem_x509_certificate(client.cert_chain_pems[0].bytes())
    return _Keys(folder, authority, certificate.subject.rfc4514_string())


def _run(suite: Path, keys: _Keys, host: str, management_url: str, tests: Sequence[str]) -> dict[str, str]:
    """Run the tests in a separate process; return the result of each."""
    report = keys.folder / f"{host}.xml"
    settings = {
        "AMQP_HOST": host,
        "AMQP_USERNAME": "guest",
        "AMQP_PASSWORD": "guest",
        "AMQP_URI": f"amqp://guest:guest@{host}:5672/%2F",
        "AMQP_HTTP_URL": management_url.rstrip("/"),
        "AMQP_SSL_URI": f"amqps://guest:guest@{host}:5671/%2F",
        "AMQP_SSL_HOST": host,
        "AMQP_CAFILE": str(keys.folder / "ca.pem"),
        "AMQP_CERTFILE": str(keys.folder / "client.pem"),
        "AMQP_KEYFILE": str(keys.folder / "client.key"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={suite}", "-p", "no:cacheprovider",
         "-p", "no:rabbitry", "-p", "no:hypothesispytest", "-q", "--tb=short", f"--junit-xml={report}",
         f"--deselect={_ELSEWHERE}", *tests],
        cwd=suite, env=os.environ | settings, capture_output=True, text=True, timeout=_RUN_WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr  # pytest exits with 0 if all passed, 1 if some failed
    print(done.stdout)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        kinds = {child.tag for child in case}
        outcome = next((kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed")
        outcomes[_id(suite, str(case.get("classname")), str(case.get("name")))] = outcome
    return outcomes


def _id(suite: Path, class_name: str, name: str) -> str:
    """Return pytest's id of a test that its report names by module and class."""
    parts = class_name.split(".")
    number = next(
        number for number in range(len(parts), 0, -1) if suite.joinpath(*parts[:number]).with_suffix(".py").exists()
    )
    return "::".join(["/".join(parts[:number]) + ".py", *parts[number:], name])


@contextlib.contextmanager
def _rabbitmq(keys: _Keys, host: str) -> Iterator[str]:
    """Run RabbitMQ on an address; return the URL of its management API."""
    chain, key = keys.server(host)
    settings = [
        f"listeners.tcp.2 = {host}:5672",
        f"listeners.ssl.1 = {host}:5671",
        f"ssl_options.cacertfile = {keys.folder}/ca.pem",
        f"ssl_options.certfile = {chain}",
        f"ssl_options.keyfile = {key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "auth_mechanisms.1 = AMQPLAIN",
        "auth_mechanisms.2 = PLAIN",
        "auth_mechanisms.3 = EXTERNAL",
    ]
    with RabbitMQ(
        management=True, is_thrifty=True, settings=settings, plugins=["rabbitmq_auth_mechanism_ssl"]
    ) as server:
        server.add_user(keys.user, "unused")
        server.set_permissions(keys.user)
        assert server.management_url is not None
        yield server.management_url


def _ours(keys: _Keys, host: str) -> Broker:
    chain, key = keys.server(host)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(keys.folder / "ca.pem"))
    tls.load_cert_chain(chain, key)
    tls.verify_mode = ssl.CERT_OPTIONAL
    users = {"guest": "guest", keys.user: "unused"}
    return Broker(BrokerConfig(host=host, port=5672, users=users, management_port=0, tls=tls, tls_port=5671))


async def _compare(suite: Path, keys: _Keys, tests: Sequence[str], least: int) -> None:
    network = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250)}"
    hosts = f"{network}.1", f"{network}.2"
    async with contextlib.AsyncExitStack() as stack:
        theirs = await asyncio.to_thread(stack.enter_context, _rabbitmq(keys, hosts[0]))
        urls = theirs, (await stack.enter_async_context(_ours(keys, hosts[1]))).management_url

        async def run(tests: Sequence[str]) -> list[dict[str, str]]:
            runs = (asyncio.to_thread(_run, suite, keys, *where, tests) for where in zip(hosts, urls, strict=True))
            return await asyncio.gather(*runs)

        rabbitmqs, ours = await run(tests)
        assert sum(outcome == "passed" for outcome in rabbitmqs.values()) >= least
        assert ours.keys() == rabbitmqs.keys()
        for _ in range(_TIMES):
            different = {
                name: f"{outcome} on RabbitMQ, {ours[name]} here"
                for name, outcome in rabbitmqs.items()
                if ours[name] != outcome and name not in DIFFERENT
            }
            if not different:
                return
            again = await run([*different])
            rabbitmqs |= again[0]
            ours |= again[1]
    assert not different


@pytest.mark.timeout(600)
async def test_its_quick_tests_have_the_same_results(suite: Path, keys: _Keys) -> None:
    programs.require(rabbitmq.why_missing())
    await _compare(suite, keys, _QUICK, 30)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_all_its_functional_tests_have_the_same_results(suite: Path, keys: _Keys) -> None:
    programs.require(rabbitmq.why_missing())
    await _compare(suite, keys, (_SUITE,), 150)
